package instance

// The state contract: every fact about an instance is one of these labels and
// annotations on its pod, or on the tombstone Event that outlives the pod.
// Labels are what is selected by; annotations hold values that no label could.
const (
	// ManagedByLabel is the recommended Kubernetes label; with managerName it
	// selects everything this service owns, and so is the selector of every watch.
	ManagedByLabel = "app.kubernetes.io/managed-by"
	ManagerName    = "binder-deploy-kubernetes"

	IDLabel           = "binder-project.org/id"
	TemplateLabel     = "binder-project.org/template"
	TemplateHashLabel = "binder-project.org/template-hash"
	// PoolLabel is poolWarm on a pod that is nobody's yet; claiming removes it.
	PoolLabel = "binder-project.org/pool"
	// PreloadLabel is set on a pod that only pulls an image.
	PreloadLabel = "binder-project.org/preload"
	// PreloadNameLabel on such a pod is the name of its DaemonSet.
	PreloadNameLabel = "binder-project.org/preload-name"

	TemplateNameAnnotation = "binder-project.org/template-name"
	LastActivityAnnotation = "binder-project.org/last-activity"
	// ActivitySourceAnnotation says what the last activity was, a Source.
	ActivitySourceAnnotation = "binder-project.org/last-activity-source"
	CullTimeoutAnnotation    = "binder-project.org/cull-timeout"
	// LaunchedAnnotation is when the pod became somebody's: for a warm one, when
	// it was claimed.
	LaunchedAnnotation = "binder-project.org/launched"
	MaxAgeAnnotation   = "binder-project.org/max-age"
	PortAnnotation     = "binder-project.org/port"
	// StripPrefixAnnotation set to "true" takes /user/<id> off the path before
	// the application sees it, for one that cannot be given a base URL.
	StripPrefixAnnotation = "binder-project.org/strip-prefix"
	// IdlePathsAnnotation is a regular expression of paths below the base URL: who
	// only gets these does not use the instance.
	IdlePathsAnnotation = "binder-project.org/idle-paths"
	// ActivityProbeAnnotation is a path below the base URL at which the
	// application says whether it is at work.
	ActivityProbeAnnotation = "binder-project.org/activity-probe"
	// ReadyWhenAnnotation says what makes the pod Ready, where it is no more than
	// that its port answers: a probe of the template's own may ask for more.
	ReadyWhenAnnotation = "binder-project.org/ready-when"
	ReadyWhenListening  = "listening"
	// MaxInstancesAnnotation on a PodTemplate bounds how many instances of it live at once.
	MaxInstancesAnnotation = "binder-project.org/max-instances"
)

// PoolWarm is the value of poolLabel on a pod that waits to be claimed.
const PoolWarm = "warm"

// PoolSizeAnnotation on a PodTemplate says how many of its pods are kept warm.
const PoolSizeAnnotation = "binder-project.org/pool-size"
