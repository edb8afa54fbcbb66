package instance

// podCauses are the reasons of pods in phase Failed: from pkg/kubelet/eviction,
// lifecycle, preemption, nodeshutdown, sysctl, cm, volumemanager and active_deadline.go,
// and of a lost node from pkg/util/node. The kubelet has rejected the pod, or has ended
// it: another pod may go to another node.
func podCauses() []Cause {
	const p = WherePod
	const full = "The node that was chosen had no room any more."
	const rejected = "The node that was chosen does not support what the template asks for."
	return []Cause{
		{p, "Evicted", []string{"exceeds the limit", "exceeds the total limit", "exceeded its local ephemeral storage limit"}, Final, FaultVisitor, "The instance used more disk than it may, and was ended."},
		{p, "Evicted", nil, Final, FaultCluster, "The node ran short of memory or disk, and ended the instance."},
		{p, "Preempting", nil, Final, FaultCluster, "The instance had to make room for a more important one."},
		{p, "Preempted", nil, Final, FaultCluster, "The instance had to make room for a more important one."},
		{p, "NodeLost", nil, Final, FaultChance, "The node of the instance is lost."},
		{p, "Terminated", nil, Final, FaultChance, "The node of the instance was shut down."},
		{p, "Shutdown", nil, Final, FaultChance, "The node of the instance was shut down."},
		{p, "NodeShutdown", nil, Final, FaultChance, "The node that was chosen is shutting down."},
		{p, "DeadlineExceeded", nil, Final, FaultChance, "The instance reached the longest time that it may run."},
		{p, "NodeAffinity", nil, Final, FaultCluster, "The node that was chosen does not fit the template any more."},
		{p, "NodeName", nil, Final, FaultCluster, "The node that was chosen does not fit the template any more."},
		{p, "NodePorts", nil, Final, FaultTemplate, "The port of the node that the template asks for is taken."},
		{p, "TaintToleration", nil, Final, FaultCluster, "The node that was chosen does not take instances any more."},
		{p, "OutOfcpu", nil, Final, FaultChance, full},
		{p, "OutOfmemory", nil, Final, FaultChance, full},
		{p, "OutOfephemeral-storage", nil, Final, FaultChance, full},
		{p, "OutOfpods", nil, Final, FaultChance, full},
		{p, "OutOf*", nil, Final, FaultChance, full},
		{p, "TopologyAffinityError", nil, Final, FaultCluster, "The node that was chosen cannot give the CPUs, memory or devices together."},
		{p, "SMTAlignmentError", nil, Final, FaultTemplate, "The node gives whole CPU cores only, and the template asks for a part of one."},
		{p, "EmptyPodSharedPoolError", nil, Final, FaultCluster, "The node that was chosen has no shared CPUs left."},
		{p, "UnexpectedAdmissionError", nil, Final, FaultCluster, "The node that was chosen could not take the instance."},
		{p, "UnexpectedPredicateFailureType", nil, Final, FaultCluster, "The node that was chosen could not take the instance."},
		{p, "UnknownReason", nil, Final, FaultCluster, "The node that was chosen could not take the instance."},
		{p, "InvalidNodeInfo", nil, Final, FaultCluster, "The node that was chosen could not take the instance."},
		{p, "PodOSSelectorNodeLabelDoesNotMatch", nil, Final, FaultTemplate, rejected},
		{p, "PodOSNotSupported", nil, Final, FaultTemplate, rejected},
		{p, "InitContainerRestartPolicyForbidden", nil, Final, FaultTemplate, rejected},
		{p, "SupplementalGroupsPolicyNotSupported", nil, Final, FaultTemplate, rejected},
		{p, "PodLevelResourcesNotSupported", nil, Final, FaultTemplate, rejected},
		{p, "PodFeatureUnsupported", nil, Final, FaultTemplate, rejected},
		{p, "AppArmor", nil, Final, FaultTemplate, rejected},
		{p, "SysctlForbidden", nil, Final, FaultTemplate, "The template sets a kernel parameter that the node forbids."},
		{p, "VolumeAttachmentLimitExceeded", nil, Final, FaultChance, "The node that was chosen cannot attach any more volumes."},
	}
}

// schedulingCauses are the reasons of the condition PodScheduled, from k8s.io/api/core/v1.
// A node may have room later.
func schedulingCauses() []Cause {
	const s = WhereScheduling
	return []Cause{
		{s, "Unschedulable", []string{"persistentvolumeclaim", "PersistentVolume", "persistent volume"}, Passing, FaultTemplate, "A volume that the template needs does not exist, or is not ready."},
		{s, "Unschedulable", []string{"Insufficient", "Too many pods"}, Passing, FaultCluster, "Waiting for room: the cluster is full."},
		{s, "Unschedulable", []string{"{node.kubernetes.io/", "were unschedulable", "unknown conditions"}, Passing, FaultCluster, "Waiting for a node: some do not work, or take no instances, at the moment."},
		{s, "Unschedulable", []string{"node selector", "node affinity"}, Passing, FaultCluster, "Waiting for a node of the kind that the template asks for."},
		{s, "Unschedulable", nil, Passing, FaultCluster, "Waiting for a node that can take the instance."},
		{s, "SchedulingGated", nil, Passing, FaultCluster, "The cluster holds the instance back for now."},
		{s, "SchedulerError", nil, Passing, FaultCluster, "The cluster could not choose a node. It tries again."},
	}
}

// disruptionCauses are the reasons of the condition DisruptionTarget, of a pod that the
// cluster deletes or has ended: from k8s.io/api/core/v1, pkg/registry/core/pod and
// pkg/controller/{podgc,tainteviction,devicetainteviction}.
func disruptionCauses() []Cause {
	const d = WhereDisruption
	return []Cause{
		{d, "PreemptionByScheduler", nil, Final, FaultCluster, "The instance had to make room for a more important one."},
		{d, "DeletionByTaintManager", nil, Final, FaultChance, "The node of the instance does not work, or takes no instances any more."},
		{d, "DeletionByDeviceTaintManager", nil, Final, FaultChance, "A device that the instance used does not work any more."},
		{d, "DeletionByPodGC", nil, Final, FaultChance, "The node of the instance is gone."},
		{d, "EvictionByEvictionAPI", nil, Final, FaultCluster, "The operator of the cluster moved instances away from their node."},
		{d, "TerminationByKubelet", nil, Final, FaultCluster, "The node ran short of memory or disk, or was shut down, and ended the instance."},
	}
}

// startingCauses are the reasons of Warning Events of pods that say what delays a start:
// from pkg/kubelet/events, pkg/kubelet and pkg/controller. FailedScheduling is not among
// them: the condition PodScheduled says the same.
func startingCauses() []Cause {
	const s = WhereStarting
	const volume = "A volume that the template needs cannot be attached or mounted. The node tries again."
	const network = "The node cannot set up the network of the instance. It tries again."
	return []Cause{
		{s, "FailedMount", []string{"registered CSI drivers", "is forbidden"}, Passing, FaultCluster, volume},
		{s, "FailedMount", []string{`configmap "`, `secret "`, `persistentvolumeclaims "`, "references non-existent"}, Passing, FaultTemplate, "A ConfigMap, Secret or volume that the template needs, or a key of one, does not exist."},
		{s, "FailedMount", nil, Passing, FaultCluster, volume},
		{s, "FailedAttachVolume", nil, Passing, FaultCluster, volume},
		{s, "FailedMapVolume", nil, Passing, FaultCluster, volume},
		{s, "FailedMountOnFilesystemMismatch", nil, Passing, FaultCluster, volume},
		{s, "FailedBinding", nil, Passing, FaultCluster, "A volume that the template needs cannot be made."},
		{s, "FailedResourceClaimCreation", nil, Passing, FaultTemplate, "A device that the template asks for cannot be claimed."},
		{s, "FailedPrepareDynamicResources", nil, Passing, FaultCluster, "A device that the template asks for is not ready. The node tries again."},
		{s, "FailedCreatePodSandBox", nil, Passing, FaultCluster, network},
		{s, "FailedPodSandBoxStatus", nil, Passing, FaultCluster, network},
		{s, "NetworkNotReady", nil, Passing, FaultCluster, network},
		{s, "FailedCreatePodContainer", nil, Passing, FaultCluster, "The node cannot prepare the instance. It tries again."},
		{s, "FailedSync", nil, Passing, FaultCluster, "The node cannot prepare the instance. It tries again."},
		{s, "Failed", []string{"pod data directories"}, Passing, FaultCluster, "The node cannot prepare the instance. It tries again."},
		{s, "FailedNodeDeclaredFeaturesCheck", nil, Passing, FaultCluster, "The node does not have a feature that the template asks for."},
	}
}

// runningCauses are the reasons of Warning Events of containers that run and are not
// ready: from pkg/kubelet/events and pkg/kubelet/prober.
func runningCauses() []Cause {
	const r = WhereRunning
	return []Cause{
		{r, "Unhealthy", []string{"connection refused"}, Passing, FaultTemplate, "The container runs, but nothing listens on port {port} of the pod's address."},
		{r, "Unhealthy", []string{"i/o timeout", "deadline exceeded", "timed out"}, Passing, FaultTemplate, "The container {container} runs, but does not answer."},
		{r, "Unhealthy", nil, Passing, FaultTemplate, "The container {container} runs, but its probe says that it is not ready."},
		{r, "FailedPostStartHook", nil, Passing, FaultTemplate, "The command that the container {container} runs after its start (postStart) failed."},
	}
}

// nodeCauses are the reasons of Warning Events of pods that were Ready, about their nodes:
// from pkg/controller/util/node.
func nodeCauses() []Cause {
	return []Cause{
		{WhereNode, "NodeNotReady", nil, Passing, FaultChance, "The node of the instance does not work at the moment."},
	}
}
