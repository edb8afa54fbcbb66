package admin

import (
	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/protocol"
)

const (
	// maxRows is the most instances in a state, over all templates, and maxTemplateRows the
	// most of one template. A page with more rows is slow, and nobody reads it.
	maxRows         = 1000
	maxTemplateRows = 200
	// minTemplateRows is how many instances of a template are shown however many templates
	// there are.
	minTemplateRows = 10
)

// RowsPerTemplate returns how many instances of each template are in a state.
func RowsPerTemplate(templates int) int {
	return min(maxTemplateRows, max(minTemplateRows, maxRows/max(templates, 1)))
}

// State is what operators see.
type State struct {
	LaunchesPaused bool       `json:"launches-paused"` // --pause-launches
	Limits         []Limit    `json:"limits"`
	Templates      []Template `json:"templates"`
}

// Limit is a limit of all instances together, and how near it is.
type Limit struct {
	Source   string  `json:"source"`   // a flag, or the name of a ResourceQuota
	Resource string  `json:"resource"` // what is limited
	Used     string  `json:"used"`
	Hard     string  `json:"hard"`
	Share    float64 `json:"share"` // used by hard; 1 if nothing is allowed
}

// NewLimit returns a limit. The numbers give the share, and the texts are for people.
func NewLimit(source, resource, usedText, hardText string, used, hard float64) Limit {
	share := 1.0
	if hard > 0 {
		share = used / hard
	}
	return Limit{source, resource, usedText, hardText, share}
}

// Template is a template with its instances.
type Template struct {
	Name string `json:"name"`
	// InCluster is false for a template that has no PodTemplate: it is the registry's, or it
	// was deleted.
	InCluster bool `json:"in-cluster"`
	// MaxInstances is absent if there is no limit. 0 pauses launches.
	MaxInstances *int `json:"max-instances,omitempty"`
	// These count instances that have not ended.
	Pending   int `json:"pending"`
	Deploying int `json:"deploying"`
	Deployed  int `json:"deployed"`
	Failed    int `json:"failed"`

	Pool    Pool                    `json:"pool"`
	Preload *protocol.PreloadStatus `json:"preload,omitempty"`
	// Instances are the first that have not ended, the oldest first; see RowsPerTemplate.
	Instances []Instance `json:"instances"`
}

// Pool counts the warm pods of a template.
type Pool struct {
	Size     int `json:"size"` // how many the template asks for
	Ready    int `json:"ready"`
	Starting int `json:"starting"`
}

// Instance is one instance. The id is there to stop it. Times are RFC 3339 in UTC.
type Instance struct {
	ID                 string          `json:"id"`
	Pod                string          `json:"pod"`
	Status             instance.Status `json:"status"`
	Reason             string          `json:"reason,omitempty"`
	Message            string          `json:"message,omitempty"`
	Detail             string          `json:"detail,omitempty"`
	Restarts           int32           `json:"restarts,omitempty"`
	Launched           string          `json:"launched"`
	LastActivity       string          `json:"last-activity,omitempty"`
	LastActivitySource instance.Source `json:"last-activity-source,omitempty"`
	CullAt             string          `json:"cull-at,omitempty"`
}

// NewInstance returns an instance in the API's words.
func NewInstance(inst instance.Instance) Instance {
	status := protocol.NewStatusResponse(inst, "")
	return Instance{
		ID: inst.ID, Pod: instance.PodName(inst.ID), Status: inst.Status,
		Reason: inst.Reason, Message: inst.Message, Detail: inst.Detail, Restarts: inst.Restarts,
		Launched:     instance.FormatTime(inst.Launched),
		LastActivity: status.LastActivity, LastActivitySource: status.LastActivitySource, CullAt: status.CullAt,
	}
}
