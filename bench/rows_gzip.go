package main

import (
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net/http"

	"github.com/binder-project/binder-deploy-kubernetes/bench/measure"
	"github.com/binder-project/binder-deploy-kubernetes/bench/report"
	"github.com/binder-project/binder-deploy-kubernetes/bench/service"
)

// zippedLines says what gzip does to an answer, which has a size without it.
func zippedLines(ctx context.Context, b *bench, s *service.Service, url string, size int) ([]report.Line, error) {
	zipped, err := zippedSize(ctx, s, url, size)
	if err != nil {
		return nil, err
	}
	smaller := own("GET list with gzip, bytes against without", "bytes", []float64{float64(zipped) / float64(size)}, report.Goal{})
	smaller.Ours, smaller.Peer = format(float64(zipped)/kibibyte, "KiB"), "without: "+format(float64(size)/kibibyte, "KiB")
	slower, err := zippedTime(ctx, b, s, url)
	return []report.Line{smaller, slower}, err
}

// zippedTime compares the time of an answer with gzip to that without. The client reads
// both and does not decompress, because that is not the service's time.
func zippedTime(ctx context.Context, b *bench, s *service.Service, url string) (report.Line, error) {
	reads := func(name, encoding string) measure.Subject {
		return timed(name, func(ctx context.Context) error { return s.Read(ctx, url, "Accept-Encoding", encoding) })
	}
	rounds, err := measure.Alternate(ctx, 5*b.rounds, true, reads("with gzip", "gzip"), reads("without gzip", "identity"))
	if err != nil {
		return report.Line{}, err
	}
	return compare("GET list with gzip, time against without", "ms", "without", rounds, 1, report.Goal{}), nil
}

// zippedSize returns the size of an answer with gzip, and checks that it has the same size
// without.
func zippedSize(ctx context.Context, s *service.Service, url string, want int) (int64, error) {
	response, err := s.Ask(ctx, http.MethodGet, url, nil, "Accept-Encoding", "gzip")
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	if response.Header.Get("Content-Encoding") != "gzip" {
		return 0, fmt.Errorf("the list is not compressed, though gzip was asked for")
	}
	counted := &counter{Reader: response.Body}
	plain, err := gzip.NewReader(counted)
	if err != nil {
		return 0, fmt.Errorf("read the compressed list: %w", err)
	}
	size, err := io.Copy(io.Discard, plain)
	if err != nil || size != int64(want) {
		return 0, fmt.Errorf("read the compressed list: %d bytes and not %d, %w", size, want, err)
	}
	return counted.bytes, nil
}

// counter counts the bytes that are read from it.
type counter struct {
	io.Reader
	bytes int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.bytes += int64(n)
	return n, err
}
