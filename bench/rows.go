package main

import (
	"fmt"

	"github.com/binder-project/binder-deploy-kubernetes/bench/measure"
	"github.com/binder-project/binder-deploy-kubernetes/bench/report"
)

// rows is every benchmark, in the order of the table.
func rows() []row {
	return []row{
		{"rss", "memory of a replica without instances", 0, resident},
		{"templates", "cost of 500 templates without instances", 0, templates},
		{"warm", "a warm launch, one alone", 0, warmAlone},
		{"burst", "20 warm launches at once", 0, warmBurst},
		{"cold", "a cold launch", 0, cold},
		{"thousand", "1,000 launches by 200 clients at once", 0, thousand},
		{"proxy", "small responses through the proxy, 32 connections", 1, proxySmall},
		{"latency", "small responses through the proxy, one connection", 1, proxyLatency},
		{"transfer", "100 MB through the proxy, down and up", 1, transfer},
		{"echo", "WebSocket echo, 100 connections", 1, socketEcho},
		{"idle", "10,000 idle WebSockets, or as many as the limit of open files allows", 1, idleSockets},
		{"activity", "writes of activity to the API server", 1000, activity},
		{"replicas", "cost of 0 to 4 replicas while pods change", 1000, replicas},
		{"processor", "processor time of one replica at 1,000 active instances", 1000, processor},
		{"growth-1k", "cost of 1,000 instances", 1000, growth},
		{"status", "GET status, 10,000 instances", 10000, status},
		{"quiet", "requests to the API server by 100,000 GETs of a status", 10000, quiet},
		{"list", "GET list of 10,000 instances", 10000, list},
		{"start", "process start to ready, 10,000 instances", 10000, start},
		{"scrape", "GET /metrics at 10,000 instances", 10000, scrape},
		{"growth-10k", "cost of 10,000 instances", 10000, growth},
		{"culler", "one pass of the culler over 50,000 instances, none due", 0, cullerPass},
		{"growth-50k", "cost of 50,000 instances", 50000, growth},
	}
}

// compare makes the line of a ratio of ours, at index 0, to a peer's.
func compare(metric, unit, peerName string, rounds measure.Rounds, peer int, goal report.Goal) report.Line {
	line := ratios(rounds.Ratios(0, peer))
	line.Metric, line.Goal = metric, goal
	line.Ours = format(measure.Median(rounds[0]), unit)
	line.Peer = peerName + ": " + format(measure.Median(rounds[peer]), unit)
	return line
}

// ratios makes a line whose figure is the median of the figures of all rounds.
func ratios(figures []float64) report.Line {
	return report.Line{Figure: measure.Median(figures), Low: measure.Quantile(figures, 0), High: measure.Quantile(figures, 1)}
}

// own makes the line of figures of ours that have no peer.
func own(metric, unit string, figures []float64, goal report.Goal) report.Line {
	line := ratios(figures)
	line.Metric, line.Ours, line.Goal = metric, format(line.Figure, unit), goal
	return line
}

// format writes a figure with three significant digits and its unit.
func format(figure float64, unit string) string {
	digits := 0
	switch {
	case figure < 10:
		digits = 2
	case figure < 100:
		digits = 1
	}
	return fmt.Sprintf("%.*f %s", digits, figure, unit)
}
