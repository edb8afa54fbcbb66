package binderhub

import (
	"net/http"

	corev1 "k8s.io/api/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/protocol"
)

// versions is what BinderHub tells of itself. MyST's launch button takes a host for one that
// launches repositories if the key binderhub is there.
type versions struct {
	Builder     string            `json:"builder"`
	BuilderInfo map[string]string `json:"builder_info"`
	BinderHub   string            `json:"binderhub"`
}

const serviceName = "binder-deploy-kubernetes"

func (b *BinderHub) serveVersions(w http.ResponseWriter) {
	answer(w, http.StatusOK, versions{
		Builder:     "none", // images exist
		BuilderInfo: map[string]string{}, BinderHub: serviceName + " " + b.deps.Version,
	})
}

// check is one line of the health. The quota has more than others.
type check struct {
	Service string `json:"service"`
	OK      bool   `json:"ok"`
	*quotaCheck
}

// quotaCheck tells how full the cluster is. Those who spread launches over several BinderHubs
// leave one out that is nearly full; it is healthy all the same.
type quotaCheck struct {
	TotalPods     int  `json:"total_pods"`
	UserPods      int  `json:"user_pods"`
	Quota         *int `json:"quota"`
	IgnoreFailure bool `json:"_ignore_failure"`
}

type health struct {
	OK     bool    `json:"ok"`
	Checks []check `json:"checks"`
}

// room is how many pods there are, and how many there can be.
type room struct {
	pods      int // instances, and pods that are kept warm
	instances int
	quota     int // -1 for no limit
}

// look counts the pods. The limit of instances does not count warm pods, which a quota does, so
// they are added to it. While launches are paused there is no more room.
func (b *BinderHub) look() room {
	instances, warm := b.deps.Pods.Count()
	r := room{pods: instances + warm, instances: instances, quota: -1}
	limit := func(most int) {
		if r.quota < 0 || most < r.quota {
			r.quota = most
		}
	}
	if b.deps.MaxInstances > 0 {
		limit(b.deps.MaxInstances + warm)
	}
	for _, quota := range b.deps.Quotas() {
		for _, name := range []corev1.ResourceName{corev1.ResourcePods, "count/pods"} {
			if hard, limited := quota.Status.Hard[name]; limited {
				limit(int(hard.Value()))
			}
		}
	}
	if b.deps.Paused {
		limit(r.pods)
	}
	return r
}

// serveHealth answers from memory.
func (b *BinderHub) serveHealth(w http.ResponseWriter) {
	room, ok := b.look(), b.deps.Healthy()
	quota := &quotaCheck{TotalPods: room.pods, UserPods: room.instances, IgnoreFailure: true}
	if room.quota >= 0 {
		quota.Quota = &room.quota
	}
	code := http.StatusOK
	if !ok {
		code = http.StatusServiceUnavailable
	}
	answer(w, code, health{OK: ok, Checks: []check{
		{Service: "Kubernetes API", OK: ok},
		{Service: "Pod quota", OK: room.quota < 0 || room.pods < room.quota, quotaCheck: quota},
	}})
}

// answer answers what any page may read.
func answer(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Access-Control-Allow-Origin", "*")
	w.Header().Set("Cache-Control", "no-store")
	protocol.WriteJSON(w, code, body)
}
