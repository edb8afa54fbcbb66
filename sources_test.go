package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"

	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"
)

func TestClusterTemplates(t *testing.T) {
	elsewhere := kubetest.Template("elsewhere")
	elsewhere.Namespace = "default"
	source := clusterTemplates{startCluster(t, kubetest.ClockAt(kubetest.Noon), kubetest.Template("jupyter"), elsewhere).Cluster}

	got, err := source.Template(t.Context(), "jupyter")
	if err != nil || got.Name != "jupyter" {
		t.Errorf("got %v, %v", got, err)
	}
	for _, name := range []string{"unknown", "", "elsewhere", "../default/elsewhere"} {
		_, err := source.Template(t.Context(), name)
		if !errors.Is(err, podtemplate.ErrUnknown) || !strings.Contains(err.Error(), fmt.Sprintf("%q", name)) {
			t.Errorf("template %q: got error %v, want one that says so", name, err)
		}
	}
}
