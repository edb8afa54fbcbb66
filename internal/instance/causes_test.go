package instance_test

import (
	"slices"
	"strings"
	"testing"

	. "github.com/binder-project/binder-deploy-kubernetes/internal/instance"
)

// sources are the reasons of Kubernetes 1.36 that say why a pod does not run, by where
// they stand and by the file of k8s.io/kubernetes that has them. Other modules and the
// container runtimes are named in full.
func sources() map[Where]map[string]string {
	return map[Where]map[string]string{
		WhereWaiting: {
			"pkg/kubelet/kubelet_pods.go":                      "ContainerCreating PodInitializing RestartingAllContainers",
			"pkg/kubelet/images/types.go":                      "ErrImagePull ImagePullBackOff ImageInspectError ErrImageNeverPull InvalidImageName",
			"k8s.io/cri-api/pkg/errors/errors.go":              "RegistryUnavailable SignatureValidationFailed",
			"pkg/kubelet/kuberuntime/kuberuntime_container.go": "CreateContainerConfigError PreCreateHookError CreateContainerError PreStartHookError PostStartHookError",
			"pkg/kubelet/container/sync_result.go":             "CrashLoopBackOff RunContainerError",
		},
		WhereTerminated: {
			"pkg/kubelet/kubelet_pods.go":      "Completed RestartingAllContainers",
			"pkg/kubelet/container/runtime.go": "ContainerStatusUnknown",
			"containerd, internal/cri/server":  "Completed Error OOMKilled StartError Unknown",
			"dockershim, still in old pods":    "ContainerCannotRun",
			"CRI-O, server":                    "OOMKilled Error Completed seccomp_killed",
		},
		WherePod: {
			"pkg/kubelet/eviction/helpers.go":                    "Evicted",
			"pkg/kubelet/preemption/preemption.go":               "Preempting",
			"pkg/kubelet/active_deadline.go":                     "DeadlineExceeded",
			"pkg/kubelet/nodeshutdown/nodeshutdown_manager.go":   "Terminated NodeShutdown",
			"kubelet before 1.22":                                "Shutdown Preempted",
			"pkg/kubelet/lifecycle/predicate.go":                 "PodOSSelectorNodeLabelDoesNotMatch PodOSNotSupported InvalidNodeInfo InitContainerRestartPolicyForbidden SupplementalGroupsPolicyNotSupported UnexpectedAdmissionError UnknownReason UnexpectedPredicateFailureType OutOfcpu OutOfmemory OutOfephemeral-storage OutOfpods OutOf*",
			"pkg/scheduler/framework/plugins/names/names.go":     "NodeAffinity NodeName NodePorts TaintToleration",
			"pkg/kubelet/lifecycle/handlers.go":                  "AppArmor PodLevelResourcesNotSupported PodFeatureUnsupported",
			"pkg/kubelet/cm/admission/errors.go":                 "UnexpectedAdmissionError EmptyPodSharedPoolError",
			"pkg/kubelet/cm/cpumanager/policy_static.go":         "SMTAlignmentError",
			"pkg/kubelet/cm/topologymanager/topology_manager.go": "TopologyAffinityError",
			"pkg/kubelet/sysctl/allowlist.go":                    "SysctlForbidden",
			"pkg/kubelet/volumemanager/volume_manager.go":        "VolumeAttachmentLimitExceeded",
			"pkg/util/node/node.go":                              "NodeLost",
		},
		WhereScheduling: {
			"k8s.io/api/core/v1/types.go": "Unschedulable SchedulingGated SchedulerError",
		},
		WhereDisruption: {
			"k8s.io/api/core/v1/types.go":                                 "PreemptionByScheduler TerminationByKubelet",
			"pkg/registry/core/pod/storage/eviction.go":                   "EvictionByEvictionAPI",
			"pkg/controller/podgc/gc_controller.go":                       "DeletionByPodGC",
			"pkg/controller/tainteviction/taint_eviction.go":              "DeletionByTaintManager",
			"pkg/controller/devicetainteviction/device_taint_eviction.go": "DeletionByDeviceTaintManager",
		},
		WhereStarting: {
			"pkg/kubelet/events/event.go":                "FailedMount FailedAttachVolume FailedMapVolume FailedMountOnFilesystemMismatch FailedPrepareDynamicResources FailedCreatePodSandBox FailedPodSandBoxStatus NetworkNotReady FailedCreatePodContainer FailedSync Failed FailedNodeDeclaredFeaturesCheck",
			"pkg/controller/volume/events/event.go":      "FailedBinding",
			"pkg/controller/resourceclaim/controller.go": "FailedResourceClaimCreation",
		},
		WhereNode: {
			"pkg/controller/util/node/controller_utils.go": "NodeNotReady",
		},
		WhereRunning: {
			"pkg/kubelet/events/event.go": "Unhealthy FailedPostStartHook",
		},
	}
}

// The table has every reason of the sources, and no other.
func TestCausesCoverKubernetes(t *testing.T) {
	for where, files := range sources() {
		var want []string
		for _, reasons := range files {
			for reason := range strings.FieldsSeq(reasons) {
				want = append(want, strings.ReplaceAll(reason, "_", " "))
			}
		}
		var got []string
		for _, cause := range Causes() {
			if cause.Where == where {
				got = append(got, cause.Reason)
			}
		}
		slices.Sort(want)
		slices.Sort(got)
		if want, got = slices.Compact(want), slices.Compact(got); !slices.Equal(got, want) {
			t.Errorf("%s: the table has\n%q, the sources have\n%q", where, got, want)
		}
	}
}

// Every row says something to people, and the rows for some messages come before the one
// for all others.
func TestCausesAreWhole(t *testing.T) {
	type key struct {
		where  Where
		reason string
	}
	general := map[key]bool{}
	for _, cause := range Causes() {
		at := key{cause.Where, cause.Reason}
		if cause.Message == "" || cause.Outlook == "" {
			t.Errorf("%v says nothing", at)
		}
		if general[at] {
			t.Errorf("%v: no message reaches the row with texts %q", at, cause.Texts)
		}
		general[at] = general[at] || len(cause.Texts) == 0
	}
	for at := range general {
		if !general[at] && at.reason != "Failed" { // an Event of many meanings
			t.Errorf("%v: there is no row for other messages", at)
		}
	}
}
