package instance

// waitingCauses are the reasons of containers that wait, except for those about images.
// They are from pkg/kubelet/kubelet_pods.go, pkg/kubelet/kuberuntime and
// pkg/kubelet/container/sync_result.go.
func waitingCauses() []Cause {
	const w = WhereWaiting
	return []Cause{
		{w, "ContainerCreating", nil, Passing, "", "Preparing the pod on its node."},
		{w, "PodInitializing", nil, Passing, "", "Preparing the application."},
		{w, "CreateContainerConfigError", []string{"failed to sync", "services have not yet been read", "cannot find volume"}, Passing, FaultCluster, "The node has not yet received what the container {container} needs. It tries again."},
		{w, "CreateContainerConfigError", nodeTexts(), Passing, FaultCluster, "The node cannot create the container {container} at the moment. It tries again."},
		{w, "CreateContainerConfigError", []string{"runAsNonRoot", "non-root"}, Final, FaultTemplate, "The container {container} may not run as root, but its image does."},
		{w, "CreateContainerConfigError", []string{"secret ", "configmap ", "couldn't find key"}, Final, FaultTemplate, "The container {container} needs a Secret or ConfigMap, or a key of one, that does not exist."},
		{w, "CreateContainerConfigError", nil, Backoff, FaultTemplate, "The container {container} is not configured correctly."},
		{w, "CreateContainerError", nodeTexts(), Passing, FaultCluster, "The node cannot create the container {container} at the moment. It tries again."},
		{w, "CreateContainerError", nil, Backoff, FaultTemplate, "The container {container} cannot be created."},
		{w, "RunContainerError", nodeTexts(), Passing, FaultCluster, "The node cannot start the container {container} at the moment. It tries again."},
		{w, "RunContainerError", []string{"executable file not found", "no such file or directory", "permission denied", "exec format error"}, Final, FaultTemplate, "The container {container} cannot be started: its command does not exist in the image, or cannot be run."},
		{w, "RunContainerError", nil, Backoff, FaultTemplate, "The container {container} cannot be started."},
		{w, "PreCreateHookError", nil, Passing, FaultCluster, "The node cannot prepare the container {container}. It tries again."},
		{w, "PreStartHookError", nil, Passing, FaultCluster, "The node cannot prepare the container {container}. It tries again."},
		{w, "PostStartHookError", nil, Passing, FaultTemplate, "The command that the container {container} runs after its start (postStart) failed. The container is started again."},
		{w, "CrashLoopBackOff", nil, Passing, FaultTemplate, "The container {container} ends again and again. It is started again after a pause."},
		{w, "RestartingAllContainers", nil, Passing, FaultTemplate, "All containers are started again, as the template asks for after the end of one."},
	}
}

// nodeTexts are parts of errors of a node, of its container runtime or of the connection
// to it, as while the runtime starts again: they pass. They are errors of errno(3), gRPC
// and containerd.
func nodeTexts() []string {
	return []string{
		"dial unix", "error reading from server", "transport is closing", "connection refused", "connection reset", "broken pipe", "unexpected EOF", ": EOF",
		"deadline exceeded", "context canceled", "is reserved for",
		"no space left on device", "resource temporarily unavailable", "cannot allocate memory", "device or resource busy", "too many open files", "input/output error",
	}
}

// imageCauses are the reasons of containers that wait for their image, from
// pkg/kubelet/images and k8s.io/cri-api/pkg/errors. ImagePullBackOff is read as the
// reason in its message, so that the reason does not change with every try.
func imageCauses() []Cause {
	const w = WhereWaiting
	return []Cause{
		{w, "ErrImagePull", []string{"dial unix", "error reading from server", "transport is closing"}, Passing, FaultCluster, "The node cannot download images at the moment. It tries again."},
		{w, "ErrImagePull", []string{"content digest"}, Backoff, FaultCluster, "The image {image} could not be unpacked."},
		{w, "ErrImagePull", []string{"unexpected media type"}, Backoff, FaultTemplate, "The registry's answer for {image} is not a container image."},
		{w, "ErrImagePull", networkTexts(), Passing, FaultCluster, "The image {image} cannot be downloaded at the moment: its registry does not answer. The node tries again."},
		{w, "ErrImagePull", []string{"no space left on device"}, Passing, FaultCluster, "The node has no room for the image {image}. It tries again."},
		{w, "ErrImagePull", []string{"no match for platform"}, Final, FaultTemplate, "The image {image} is not made for the nodes of this cluster."},
		{w, "ErrImagePull", []string{": not found", "404 Not Found", "manifest unknown", "name unknown", "repository does not exist"}, Final, FaultTemplate, "The image {image} does not exist, or needs a password to download."},
		{w, "ErrImagePull", []string{
			"pull access denied", "access to the resource is denied", "authorization failed", "authentication required",
			"401 Unauthorized", "403 Forbidden", "no basic auth credentials",
		}, Final, FaultTemplate, "This cluster may not download the image {image}."},
		{w, "ErrImagePull", []string{"no such host"}, Backoff, FaultTemplate, "The image {image} is on a registry that cannot be found."},
		{w, "ErrImagePull", nil, Backoff, FaultTemplate, "The image {image} cannot be downloaded."},
		{w, "ImagePullBackOff", nil, Backoff, FaultTemplate, "The image {image} cannot be downloaded."},
		{w, "RegistryUnavailable", nil, Passing, FaultCluster, "The image {image} cannot be downloaded at the moment: its registry does not answer. The node tries again."},
		{w, "SignatureValidationFailed", nil, Final, FaultTemplate, "The image {image} does not have a valid signature."},
		{w, "ErrImageNeverPull", nil, Final, FaultTemplate, "The image {image} is not on the node, and the template forbids to download it."},
		{w, "InvalidImageName", nil, Final, FaultTemplate, "The image's name is not valid: {image}."},
		{w, "ImageInspectError", nil, Passing, FaultCluster, "The node cannot read the image {image} at the moment. It tries again."},
	}
}

// networkTexts are parts of errors of the network and of overloaded registries: they
// pass.
func networkTexts() []string {
	return []string{
		"i/o timeout", "deadline exceeded", "TLS handshake timeout", "connection refused", "connection reset", "broken pipe",
		"connection timed out", "no route to host", "network is unreachable", "server misbehaving", "Temporary failure", "unexpected EOF", ": EOF",
		"request canceled", "Client.Timeout", "GOAWAY", "stream error",
		"500 Internal", "502 Bad Gateway", "503 Service", "504 Gateway", "429 Too Many", "toomanyrequests",
	}
}

// terminatedCauses are the reasons of containers that have ended, from
// pkg/kubelet/kubelet_pods.go, containerd and CRI-O. Whether the kubelet starts the
// container again is up to the pod's restart policy: Outlook applies only if the kubelet
// does not start the container again. Fault is the one before the pod was ever Ready, or
// after: see endFault.
func terminatedCauses() []Cause {
	const t = WhereTerminated
	return []Cause{
		{t, "Completed", nil, Final, "", "The application ended by itself."},
		{t, "Error", nil, Final, FaultTemplate, "The application ended: container {container} {how}."},
		{t, "OOMKilled", nil, Final, FaultVisitor, "The application {how}: container {container}."},
		{t, "StartError", nil, Final, FaultTemplate, "The container {container} cannot be started: its command does not exist in the image, or cannot be run."},
		{t, "ContainerCannotRun", nil, Final, FaultTemplate, "The container {container} cannot be started: its command does not exist in the image, or cannot be run."},
		{t, "ContainerStatusUnknown", nil, Final, FaultCluster, "The node lost the container {container}."},
		{t, "RestartingAllContainers", nil, Passing, FaultTemplate, "All containers are started again, as the template asks for after the end of one."},
		{t, "Unknown", nil, Final, FaultCluster, "The node does not know how the container {container} ended."},
		{t, "seccomp killed", nil, Final, FaultTemplate, "The application did what the cluster forbids, and was ended."},
	}
}
