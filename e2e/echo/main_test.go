package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestRunListensAfterTheDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var listened time.Duration
		code, err := run(t.Context(), time.Hour, nil, func() (net.Listener, error) {
			listened = time.Since(began)
			return nil, errors.New("port taken")
		})
		assert.Equal(t, time.Hour, listened)
		assert.Equal(t, 1, code)
		assert.EqualError(t, err, "port taken")
	})
}

func TestRunEndsDuringTheDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		code, err := run(ctx, time.Hour, nil, func() (net.Listener, error) {
			t.Error("run listens before the delay is over")
			return nil, errors.New("no listener")
		})
		assert.Zero(t, code)
		assert.NoError(t, err)
	})
}

// TestRunEnds checks that a signal and a request for exit end a real server, and
// that the request is answered.
func TestRunEnds(t *testing.T) {
	for _, test := range []struct {
		name string
		path string // request path that ends the server; empty for a signal
		want int
	}{
		{"signal", "", 0},
		{"done", "/user/1/exit", 0},
		{"broken", "/user/1/exit?code=3", 3},
	} {
		t.Run(test.name, func(t *testing.T) {
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			url := "http://" + listener.Addr().String()
			ended := make(chan int, 1)
			go func() {
				code, _ := run(ctx, 0, nil, func() (net.Listener, error) { return listener, nil })
				ended <- code
			}()
			answer := get(t, url+"/")
			require.Equal(t, http.StatusOK, answer.StatusCode)
			if test.path == "" {
				cancel()
			} else {
				answer := get(t, url+test.path)
				assert.Equal(t, http.StatusOK, answer.StatusCode)
				assert.Contains(t, answer.body, "exit with code")
			}
			assert.Equal(t, test.want, <-ended)
			if test.path != "" {
				assert.NoError(t, ctx.Err(), "the context, not the request, ended the server")
			}
			_, err = net.DialTimeout("tcp", listener.Addr().String(), time.Second)
			assert.Error(t, err, "the server still listens")
		})
	}
}

// TestRunRaw checks that the argument raw starts the raw application, which knows no
// echo, and that other arguments are refused.
func TestRunRaw(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := run(ctx, 0, []string{"raw"}, func() (net.Listener, error) { return listener, nil })
		ended <- err
	}()
	assert.Equal(t, http.StatusNotFound, get(t, "http://"+listener.Addr().String()+"/user/1/").StatusCode)
	cancel()
	assert.NoError(t, <-ended)

	code, err := run(t.Context(), 0, []string{"cooked"}, nil)
	assert.Equal(t, 2, code)
	assert.ErrorContains(t, err, "cooked")
}
