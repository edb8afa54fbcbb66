package instance_test

import (
	"net/http"
	"testing"

	. "github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

func TestToken(t *testing.T) {
	const token = kubetest.Token
	for _, row := range []struct {
		name, token, annotation string
		want                    Token
	}{
		{"the default", token, "", Token{"X-Binder-Token", token}},
		{"the template's field", token, "authorization: token $(BINDER_TOKEN)", Token{"Authorization", "token " + token}},
		{"an invalid field", token, "Host: $(BINDER_TOKEN)", Token{"X-Binder-Token", token}},
		{"no token", "", "Authorization: token $(BINDER_TOKEN)", Token{}},
		{"a token that ends the field", "a\r\nHost: b", "", Token{}},
	} {
		pod := kubetest.Pod(kubetest.ID(1), kubetest.Noon, kubetest.WithAnnotation(TokenAnnotation, row.token), kubetest.WithAnnotation(TokenHeaderAnnotation, row.annotation))
		got := FromPod(pod, nil, kubetest.Noon, kubetest.StartTimeout).Token
		if got != row.want {
			t.Errorf("%s: got %q, want %q", row.name, got, row.want)
		}
		h := http.Header{"X-Binder-Token": {"forged", "twice"}, "Authorization": {"own"}}
		got.Set(h)
		if row.want.Name != "" && h.Get(row.want.Name) != row.want.Value || len(h) != 2 {
			t.Errorf("%s: the header is %v", row.name, h)
		}
	}
}
