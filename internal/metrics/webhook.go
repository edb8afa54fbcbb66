package metrics

import "github.com/prometheus/client_golang/prometheus"

// webhook are the metrics of the events that are told to a receiver. Without one they stay zero.
type webhook struct {
	deliveries *prometheus.CounterVec
	queued     prometheus.Gauge
}

func (m *Metrics) makeWebhook(values Values) {
	m.webhook = webhook{
		deliveries: m.results("binder_webhook_deliveries_total",
			"Events for the receiver of the webhook, by this replica: ok (it has accepted one), retried (a try failed, and there will be another), "+
				"refused (it does not want one), dropped (one was given up).",
			"result", values.Deliveries),
		queued: m.gauge("binder_webhook_queue_length", "Events that wait at this replica for the receiver of the webhook."),
	}
}

// WebhookDelivered counts what came of a delivery, or of a try that failed.
func (m *Metrics) WebhookDelivered(result string) {
	m.webhook.deliveries.WithLabelValues(result).Inc()
}

// WebhookQueued records how many events wait to be delivered.
func (m *Metrics) WebhookQueued(events int) { m.webhook.queued.Set(float64(events)) }
