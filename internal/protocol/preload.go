package protocol

import (
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/internal/preload"
)

// PreloadStatus is a preload in the protocol's words. The fields from nodes-done on are this
// server's additions.
type PreloadStatus struct {
	Name      string         `json:"name"`
	StartTime time.Time      `json:"start-time"`
	Status    preload.Status `json:"status"`
	NodesDone int            `json:"nodes-done"`
	NodesToDo int            `json:"nodes-to-do"`
	Reason    string         `json:"reason,omitempty"`
	Message   string         `json:"message,omitempty"`
}

// NewPreloadStatus returns the answer that describes a preload.
func NewPreloadStatus(progress preload.Progress) PreloadStatus {
	return PreloadStatus{
		Name:      progress.Template,
		StartTime: progress.Started.UTC(),
		Status:    progress.Status,
		NodesDone: progress.Done,
		NodesToDo: progress.ToDo,
		Reason:    progress.Reason,
		Message:   progress.Message,
	}
}
