package main

import (
	"context"
	"net/http"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/internal/preload"

	"github.com/binder-project/binder-deploy-kubernetes/internal/protocol"
)

// TemplatePreloader pulls templates' images onto nodes and tells how far it is.
type TemplatePreloader interface {
	Preload(ctx context.Context, template string) (preload.PreloadedTemplate, error)
	Status(ctx context.Context, template string) (preload preload.Preload, known bool, err error)
}

var _ TemplatePreloader = (*preload.Preloader)(nil)

// preloadResponse is a preload in the protocol's words. From nodes-done on it is
// this server's addition.
type preloadResponse struct {
	Name      string                `json:"name"`
	StartTime time.Time             `json:"start-time"`
	Status    preload.PreloadStatus `json:"status"`
	NodesDone int                   `json:"nodes-done"`
	NodesToDo int                   `json:"nodes-to-do"`
	Reason    string                `json:"reason,omitempty"`
	Message   string                `json:"message,omitempty"`
}

// preload begins to pull the images of the path's template onto all nodes.
func (a *API) preload(w http.ResponseWriter, r *http.Request) error {
	template, err := a.Preloader.Preload(r.Context(), r.PathValue("template"))
	if err != nil {
		return err
	}
	protocol.WriteJSON(w, http.StatusOK, struct {
		Template preload.PreloadedTemplate `json:"template"`
	}{template})
	return nil
}

// preloadStatus tells how far that is; of a template that has never been
// preloaded, nothing.
func (a *API) preloadStatus(w http.ResponseWriter, r *http.Request) error {
	preload, known, err := a.Preloader.Status(r.Context(), r.PathValue("template"))
	if err != nil {
		return err
	}
	if !known {
		protocol.WriteJSON(w, http.StatusOK, struct{}{})
		return nil
	}
	protocol.WriteJSON(w, http.StatusOK, preloadResponse{
		Name:      preload.Template,
		StartTime: preload.Started.UTC(),
		Status:    preload.Status,
		NodesDone: preload.Done,
		NodesToDo: preload.ToDo,
		Reason:    preload.Reason,
		Message:   preload.Message,
	})
	return nil
}
