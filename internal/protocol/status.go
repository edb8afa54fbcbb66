package protocol

import "github.com/binder-project/binder-deploy-kubernetes/internal/instance"

// StatusResponse is an instance in the protocol's words. The fields after the status
// are this server's additions.
type StatusResponse struct {
	ID           string          `json:"id"`
	TemplateName string          `json:"template-name"`
	Location     string          `json:"location,omitempty"`
	Status       instance.Status `json:"status"`
	Reason       string          `json:"reason,omitempty"`
	Message      string          `json:"message,omitempty"`
	Fault        instance.Fault  `json:"fault,omitempty"`
	// Detail is the cluster's own text. NewStatusResponse leaves it out: only holders of
	// the API key may see it.
	Detail        string `json:"detail,omitempty"`
	Restarts      int32  `json:"restarts,omitempty"`
	RestartReason string `json:"restart-reason,omitempty"`
	// These are absent for an instance that has ended. Times are RFC 3339 in UTC.
	LastActivity       string          `json:"last-activity,omitempty"`
	LastActivitySource instance.Source `json:"last-activity-source,omitempty"`
	CullAt             string          `json:"cull-at,omitempty"`
}

// NewStatusResponse returns the answer that describes an instance. location is where
// the instance is if it is deployed.
func NewStatusResponse(inst instance.Instance, location string) StatusResponse {
	response := StatusResponse{
		ID: inst.ID, TemplateName: inst.Template, Status: inst.Status,
		Reason: inst.Reason, Message: inst.Message, Fault: inst.Fault,
		Restarts: inst.Restarts, RestartReason: inst.RestartReason,
	}
	if inst.Status == instance.StatusDeployed {
		response.Location = location
	}
	response.LastActivity, response.LastActivitySource, response.CullAt = activityOf(inst)
	return response
}

// activityOf returns when an instance was last used, how, and when it is due to end, as clients
// are told; nothing of one that has ended, or of which that is not known.
func activityOf(inst instance.Instance) (last string, source instance.Source, cullAt string) {
	if !inst.Alive() || inst.CullAt.IsZero() {
		return "", "", ""
	}
	return instance.FormatTime(inst.LastActivity), inst.Source, instance.FormatTime(inst.CullAt)
}
