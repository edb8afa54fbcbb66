package instance

import (
	"slices"
	"strings"
)

// What messages are made of, besides the table of causes, and besides the last output of a
// container. Parts in braces are as in Cause.
const (
	waitingForNode       = "Waiting for a node."
	preparingPod         = "Preparing the pod on its node."
	preparingApplication = "Preparing the application."
	startingApplication  = "Starting the application."
	fetchingImage        = "Fetching the image {image}, unless the node has it."
	waitingForRest       = "Waiting for the rest of the instance."

	waitingForPlace = "Waiting for a free place."
	nextPlace       = "Waiting for a free place: the next one is yours."
	placesBefore    = "Waiting for a free place: {ahead} before you."

	endedAndRestarts      = "The application ended and is started again: container {container} {how}."
	endedAndRestartsOften = "The application ended and is started again: container {container} {how}, {times} times."
	doesNotStart          = "The application does not start: container {container} {how}."
	doesNotStartOften     = "The application does not start: container {container} {how}, {times} times."
	waitsForOther         = "The application waits for another container that ended and is started again: container {container} {how}."
	waitsForOtherOften    = "The application waits for another container that ended and is started again: container {container} {how}, {times} times."
	nodeTriesAgain        = "The node tries again."

	endedByItself  = "The application ended by itself."
	helperHasEnded = "Container {container} {how}, and without it the instance is not ready."
	notReadyInTime = "The application was not ready within {time}."
	lastStepWas    = "Its last step was:"
	endNotSaid     = "The instance ended, and the cluster does not say why."
	unknownProblem = "The cluster reports a problem that this service does not know."
	beingDeleted   = "The instance is being deleted."
	deletedOutside = "The pod was deleted from outside this service."

	launchingWillNotHelp = "Launching again will not help: tell the author of the template."
	tryAgainLater        = "Try again later, or tell the operator of this service."
	launchNewOne         = "Launch a new one."
	tellIfAgain          = "If it ends again, tell the author of the template."

	restartedOnce  = "The application was started again: it {how}. Files outside volumes are gone."
	restartedOften = "The application was started again {times} times: the last time, it {how}. Files outside volumes are gone."

	notUsed   = "Not used for {time}; its cull timeout is {timeout}."
	tooOld    = "Launched {time} ago; its max age is {age}."
	notWaited = "It waited for a free place, and nobody asked about it for {time}."

	// LastOutputFollows stands before the last output of a container.
	LastOutputFollows = "The container's last output:"
)

// How a container ended.
const (
	hasEnded          = "ended"
	exitedWithCode    = "exited with code {code}"
	outOfMemory       = "ran out of memory"
	overMemoryLimit   = "ran out of memory (limit {limit})"
	couldNotStart     = "could not be started"
	lostByNode        = "was lost by its node"
	endedForAll       = "was ended, so that all containers start again"
	endedByPostStart  = "was ended, because its postStart command failed"
	endedByLiveness   = "was ended, because its liveness probe failed"
	endedByStartProbe = "was ended, because its startup probe failed"
)

// Texts returns all that the messages of this package are made of, as texts with parts in braces.
// A message is one or more of them, with a space between. The pages translate them.
func Texts() []string {
	all := []string{
		waitingForNode, preparingPod, preparingApplication, startingApplication, fetchingImage, waitingForRest,
		waitingForPlace, nextPlace, placesBefore,
		endedAndRestarts, endedAndRestartsOften, doesNotStart, doesNotStartOften, waitsForOther, waitsForOtherOften, nodeTriesAgain,
		endedByItself, helperHasEnded, notReadyInTime, lastStepWas, endNotSaid, unknownProblem, beingDeleted, deletedOutside,
		launchingWillNotHelp, tryAgainLater, launchNewOne, tellIfAgain,
		restartedOnce, restartedOften,
		notUsed, tooOld, notWaited,
		LastOutputFollows,
	}
	for _, cause := range Causes() {
		all = append(all, cause.Message)
	}
	all = append(all, EndTexts()...)
	slices.Sort(all)
	return slices.Compact(all)
}

// EndTexts returns what the part {how} of a text can be, and the RestartReason of an Instance.
func EndTexts() []string {
	return []string{
		hasEnded, exitedWithCode, outOfMemory, overMemoryLimit, couldNotStart, lostByNode, endedForAll,
		endedByPostStart, endedByLiveness, endedByStartProbe,
	}
}

// Fill puts values in place of the parts of a text: pairs of a part, in its braces, and its value.
func Fill(text string, pairs ...string) string { return strings.NewReplacer(pairs...).Replace(text) }
