package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Unwritten tells since when this replica has had uses that it could not write: idle instances
// stay for as long. writtenUntil returns until when all are written; zero if that is not known
// yet.
func (m *Metrics) Unwritten(writtenUntil, now func() time.Time) {
	m.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "binder_activity_unwritten_seconds",
		Help: "How long this replica has had uses that are due to be written and are not; a second or so if there is no trouble.",
	}, func() float64 {
		written := writtenUntil()
		if written.IsZero() { // the cluster is still being read
			return 0
		}
		return max(0, now().Sub(written).Seconds())
	}))
}

// Queued tells how many instances wait for a place.
func (m *Metrics) Queued(waiting func() int) {
	m.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "binder_queued_instances",
		Help: "Instances in the cluster that wait for a place within the limits. Every replica reports all of them.",
	}, func() float64 { return float64(waiting()) }))
}
