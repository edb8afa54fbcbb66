//go:build e2e

package e2e

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/harness"
)

// TestStreamBothWays talks to a Node application that answers while it reads, with
// trailers both ways (RFC 9112, section 7.1.2).
func TestStreamBothWays(t *testing.T) {
	t.Parallel()
	inBothModes(t, "stream", []string{"node", "stream.js"}, func(t *testing.T, app *harness.Instance) {
		ctx, cancel := context.WithTimeout(t.Context(), visitTimeout)
		defer cancel()
		body, say := io.Pipe()
		defer say.Close()
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, app.URL("/shout"), body)
		require.NoError(t, err)
		request.Trailer = http.Header{"X-Sum": {"a-sum"}}
		response, err := new(http.Transport).RoundTrip(request)
		require.NoError(t, err, "the application's answer begins before the request ends")
		defer response.Body.Close()
		for _, word := range []string{"one", "two", "three"} {
			_, err := io.WriteString(say, word)
			require.NoError(t, err)
			heard := make([]byte, len(word))
			_, err = io.ReadFull(response.Body, heard)
			require.NoError(t, err)
			assert.Equal(t, strings.ToUpper(word), string(heard))
		}
		require.NoError(t, say.Close())
		rest, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		assert.Empty(t, rest)
		assert.Equal(t, "3", response.Trailer.Get("X-Count"))
		assert.Equal(t, "a-sum", response.Trailer.Get("X-Repeated"))
	})
}

// TestRPC calls remote procedures by gRPC-Web, whose trailers are in the body, and by
// the Connect protocol.
func TestRPC(t *testing.T) {
	t.Parallel()
	for _, template := range []string{"echo", "echo-strip"} {
		t.Run(template, func(t *testing.T) {
			t.Parallel()
			app := suite.Launch(t, template, harness.LongTimeout).AwaitDeployed(t)
			for name, options := range map[string][]connect.ClientOption{
				"gRPC-Web":            {connect.WithGRPCWeb()},
				"gRPC-Web compressed": {connect.WithGRPCWeb(), connect.WithSendGzip()},
				"Connect":             nil,
			} {
				t.Run(name, func(t *testing.T) { callProcedures(t, app, options) })
			}
		})
	}
}

func callProcedures(t *testing.T, app *harness.Instance, options []connect.ClientOption) {
	ctx, cancel := context.WithTimeout(t.Context(), visitTimeout)
	defer cancel()
	browser := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

	join := connect.NewClient[wrapperspb.StringValue, wrapperspb.StringValue](browser, app.URL("/binder.Echo/Join"), options...).
		CallClientStream(ctx)
	for _, word := range []string{"one ", "two ", strings.Repeat("x", 1<<20)} {
		require.NoError(t, join.Send(wrapperspb.String(word)))
	}
	joined, err := join.CloseAndReceive()
	require.NoError(t, err)
	assert.Equal(t, "one two "+strings.Repeat("x", 1<<20), joined.Msg.GetValue())
	assert.Equal(t, "3", joined.Trailer().Get("Messages"))

	count := connect.NewClient[wrapperspb.Int64Value, wrapperspb.Int64Value](browser, app.URL("/binder.Echo/Count"), options...)
	endlessCtx, leave := context.WithCancel(ctx)
	defer leave()
	endless, err := count.CallServerStream(endlessCtx, connect.NewRequest(wrapperspb.Int64(1)))
	require.NoError(t, err)
	require.True(t, endless.Receive(), "a message must arrive before the stream ends: %v", endless.Err())
	assert.EqualValues(t, 1, endless.Msg().GetValue())
	leave()

	failing, err := count.CallServerStream(ctx, connect.NewRequest(wrapperspb.Int64(0)))
	require.NoError(t, err)
	require.True(t, failing.Receive(), "%v", failing.Err())
	require.False(t, failing.Receive())
	var failure *connect.Error
	require.ErrorAs(t, failing.Err(), &failure)
	assert.Equal(t, connect.CodeResourceExhausted, failure.Code())
	assert.Equal(t, "no more numbers", failure.Message())
	assert.Equal(t, "1", failure.Meta().Get("Last"))
	require.NoError(t, failing.Close())
}
