package instance

// The state contract: the labels and annotations of this service, and those of
// their values that have a meaning of their own. The comment on a key says who
// writes and who reads it. "Everything" means the pods, DaemonSets and tombstones
// that this service creates. It does not mean the Lease, nor the Warning Events on
// templates: those have none of these keys.
const (
	// Labels, by which objects are selected and told apart.

	// ManagedByLabel is the recommended Kubernetes label. It is ManagerName on
	// everything. The watches of pods, tombstones and preloads select by it. The
	// watches of PodTemplates and of the proxy's Service do not.
	ManagedByLabel = "app.kubernetes.io/managed-by"
	// IDLabel is the instance's id, on its pod and its tombstone. NewPod and the
	// tombstone writer write it. Whatever looks up an instance reads it.
	IDLabel = "binder-project.org/id"
	// TemplateLabel is the TemplateLabelValue of the template's name, on
	// everything. Operators select by it. This service reads TemplateNameAnnotation;
	// TemplateOf falls back to the label.
	TemplateLabel = "binder-project.org/template"
	// TemplateHashLabel tells versions of a template apart, on everything. The pool,
	// claims and preloads read it to find pods and DaemonSets that are out of date.
	TemplateHashLabel = "binder-project.org/template-hash"
	// PoolLabel is PoolWarm on a pod that waits in the pool. The pool writes it, and
	// a claim removes it. A pod that has this value is not an instance.
	PoolLabel = "binder-project.org/pool"
	// ClientLabel says whose launch made the pod an instance: a keyed hash of the
	// client's address, as package admission makes it. The launcher writes it when it
	// creates or claims the pod, and the tombstone writer copies it. The limits of each
	// client are counted by it. A launch with the API key leaves none.
	ClientLabel = "binder-project.org/client"
	// QueueLabel is QueueWaiting on the pod of an instance that waits for a place within the
	// limits, and QueueAdmitted once it has got one. The launcher writes the first when it
	// creates or claims the pod, and the leader the second. A pod without it has not waited.
	QueueLabel = "binder-project.org/queue"
	// PreloadLabel is "true" on the DaemonSets that pull images, and on their pods.
	// The preloader writes it. These objects have no id, so they are not instances.
	PreloadLabel = "binder-project.org/preload"
	// PreloadNameLabel is the name of the DaemonSet, on the pods of a preload. The
	// preloader writes it. The DaemonSet selects its pods by it, and the read model
	// finds them by it.
	PreloadNameLabel = "binder-project.org/preload-name"

	// Annotations on pods.

	// TemplateNameAnnotation is the full name of the template, on everything. NewPod,
	// the preloader and the tombstone writer write it. TemplateOf reads it.
	TemplateNameAnnotation = "binder-project.org/template-name"
	// LaunchedAnnotation is when the pod became an instance: when it was created for
	// a launch, or claimed from the pool; or when it got its place, if it has waited for one.
	// The launcher writes it, and so does the leader with the place. The culler replaces a
	// wrong value. The tombstone writer copies it. The max age counts from it,
	// and so does the launch rate.
	LaunchedAnnotation = "binder-project.org/launched"
	// QueueTermAnnotation is when a leader began to give places, on the pods of instances that
	// waited then. It writes it so that no write of the leader before, which may still be under
	// way, succeeds any more. Nobody reads it.
	QueueTermAnnotation = "binder-project.org/queue-term"
	// RestartsBeforeAnnotation is how often the container that serves was restarted while
	// the pod waited in the pool. A claim writes it if that is not 0. Those restarts are
	// not the instance's.
	RestartsBeforeAnnotation = "binder-project.org/restarts-before"
	// ClaimedForAnnotation is the id that an idempotency key would have given to the instance of
	// a claimed pod, which has another. By it a repeated request finds the pod.
	ClaimedForAnnotation = "binder-project.org/claimed-for"
	// LastActivityAnnotation is when the instance was last used. The launcher and, for
	// uses since, each replica's activity tracker write it; the culler writes what a
	// probe found, and replaces a wrong value. Decisions about its end read it.
	LastActivityAnnotation = "binder-project.org/last-activity"
	// ActivitySourceAnnotation is the Source of the last activity, and is written
	// with it. It is absent after the culler has replaced a wrong time. Only clients
	// are told it; no decision reads it.
	ActivitySourceAnnotation = "binder-project.org/last-activity-source"
	// TokenAnnotation is the instance's token, a random text, which is also in its
	// environment. NewPod writes it. The proxy and the activity probe present it to the
	// application.
	TokenAnnotation = "binder-project.org/token"
	// ReadyWhenAnnotation is ReadyWhenListening if the pod becomes Ready as soon as
	// its port accepts connections, because nothing in the template asks for more.
	// NewPod writes it. A replica with a waiting client then dials the port itself.
	ReadyWhenAnnotation = "binder-project.org/ready-when"

	// Annotations on tombstones, which the tombstone writer writes and FromTombstone reads.

	// DetailAnnotation is the Detail of an instance that has ended.
	DetailAnnotation = "binder-project.org/detail"
	// FaultAnnotation is its Fault.
	FaultAnnotation = "binder-project.org/fault"

	// Annotations on PodTemplates, which operators write. NewPod copies them to the
	// pod, so that an instance does not change with its template. With an invalid port,
	// cull timeout, max age or token header there is no pod. An invalid value of any other
	// is not copied.

	// PortAnnotation is the port that the application listens on. On a pod it is
	// always set; the proxy connects to it.
	PortAnnotation = "binder-project.org/port"
	// PortsAnnotation are ports of the pod that visitors reach too, separated by commas: each at a
	// host of its own. Without an instance domain they cannot be reached.
	PortsAnnotation = "binder-project.org/ports"
	// LogsAnnotation is LogsOfStart if visitors see the log of the application until it is
	// deployed. The service must have the right to read logs.
	LogsAnnotation = "binder-project.org/logs"
	// StripPrefixAnnotation is "true" if the proxy takes /user/<id> off the path, for
	// an application that cannot be given a base URL.
	StripPrefixAnnotation = "binder-project.org/strip-prefix"
	// TokenHeaderAnnotation is the header field in which the application expects the
	// token; see ParseTokenHeader. If it is absent, that is DefaultTokenHeader.
	TokenHeaderAnnotation = "binder-project.org/token-header"
	// CullTimeoutAnnotation is how long an instance may be idle, a Go duration. On a
	// pod, the launcher writes it too, for a launch that asks for a cull timeout.
	// Decisions about the instance's end read it.
	CullTimeoutAnnotation = "binder-project.org/cull-timeout"
	// MaxAgeAnnotation is how long an instance may live, however active, a Go
	// duration. Decisions about the instance's end read it.
	MaxAgeAnnotation = "binder-project.org/max-age"
	// IdlePathsAnnotation is a regular expression of paths below the base URL. The
	// proxy does not count GETs of them as use of the instance.
	IdlePathsAnnotation = "binder-project.org/idle-paths"
	// IdleRequestsAnnotation is a regular expression of methods and paths, such as
	// "POST events/poll". The proxy does not count such requests as use of the instance.
	IdleRequestsAnnotation = "binder-project.org/idle-requests"
	// HeartbeatFramesAnnotation is a size in bytes and a regular expression of paths.
	// The proxy does not count WebSocket messages of at most that size, on those paths,
	// as use of the instance.
	HeartbeatFramesAnnotation = "binder-project.org/heartbeat-frames"
	// ActivityProbeAnnotation is a path below the base URL. The culler asks there
	// whether the application of an idle instance is at work.
	ActivityProbeAnnotation = "binder-project.org/activity-probe"

	// Annotations on PodTemplates that are not copied to pods.

	// MaxInstancesAnnotation is how many instances of the template may exist at once.
	// The launcher reads it, and writes it to the pods of instances that wait for a place, for
	// when the template is gone. The queue reads both.
	MaxInstancesAnnotation = "binder-project.org/max-instances"
	// PoolSizeAnnotation is how many pods of the template are kept warm, or from how many
	// to how many. The pool reads it.
	PoolSizeAnnotation = "binder-project.org/pool-size"
	// PoolScheduleAnnotation is how many are kept warm at least at which times, if
	// PoolSizeAnnotation is a range. The pool reads it.
	PoolScheduleAnnotation = "binder-project.org/pool-schedule"
	// TitleAnnotation and DescriptionAnnotation are what people read of the template, in a
	// line each. The pages show them.
	TitleAnnotation       = "binder-project.org/title"
	DescriptionAnnotation = "binder-project.org/description"
	// IconAnnotation is a small picture of the template, as a data URL. The pages show it.
	IconAnnotation = "binder-project.org/icon"
	// SpecsAnnotation names the repositories that the template is for, as BinderHub's
	// clients do, one a line. Package podtemplate finds templates by it.
	SpecsAnnotation = "binder-project.org/specs"

	// Values.

	// ManagerName is the value of ManagedByLabel, and the field manager of writes.
	ManagerName = "binder-deploy-kubernetes"
	// PoolWarm is the value of PoolLabel.
	PoolWarm = "warm"
	// QueueWaiting and QueueAdmitted are the values of QueueLabel.
	QueueWaiting  = "waiting"
	QueueAdmitted = "admitted"
	// LogsOfStart is the value of LogsAnnotation.
	LogsOfStart = "start"
	// ReadyWhenListening is the value of ReadyWhenAnnotation.
	ReadyWhenListening = "listening"
)
