package main

import (
	"context"
	"fmt"
	"io"
	"net/http"

	"github.com/binder-project/binder-deploy-kubernetes/bench/measure"
	"github.com/binder-project/binder-deploy-kubernetes/bench/report"
	"github.com/binder-project/binder-deploy-kubernetes/bench/service"
)

// zippedTime compares the time of an answer with gzip to that without. The client reads
// both and does not decompress, because that is not the service's time.
func zippedTime(ctx context.Context, b *bench, s *service.Service, url string) (report.Line, error) {
	reads := func(name, encoding string) measure.Subject {
		return timed(name, func(ctx context.Context) error {
			response, err := s.Ask(ctx, http.MethodGet, url, nil, "Accept-Encoding", encoding)
			if err != nil {
				return err
			}
			defer response.Body.Close()
			if _, err := io.Copy(io.Discard, response.Body); err != nil {
				return fmt.Errorf("read the list: %w", err)
			}
			return nil
		})
	}
	rounds, err := measure.Alternate(ctx, 5*b.rounds, true, reads("with gzip", "gzip"), reads("without gzip", "identity"))
	if err != nil {
		return report.Line{}, err
	}
	return compare("GET list with gzip, time against without", "ms", "without", rounds, 1, report.Goal{}), nil
}
