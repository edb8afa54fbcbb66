package main

import (
	"net/http"
	"testing"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// TestProcedures checks the procedures below any path, by both protocols.
func TestProcedures(t *testing.T) {
	url := serve(t)
	for _, options := range [][]connect.ClientOption{nil, {connect.WithGRPCWeb()}} {
		join := connect.NewClient[wrapperspb.StringValue, wrapperspb.StringValue](http.DefaultClient, url+"/user/1/binder.Echo/Join", options...).
			CallClientStream(t.Context())
		require.NoError(t, join.Send(wrapperspb.String("a")))
		require.NoError(t, join.Send(wrapperspb.String("b")))
		joined, err := join.CloseAndReceive()
		require.NoError(t, err)
		assert.Equal(t, "ab", joined.Msg.GetValue())
		assert.Equal(t, "2", joined.Trailer().Get("Messages"))

		count := connect.NewClient[wrapperspb.Int64Value, wrapperspb.Int64Value](http.DefaultClient, url+"/binder.Echo/Count", options...)
		numbers, err := count.CallServerStream(t.Context(), connect.NewRequest(wrapperspb.Int64(0)))
		require.NoError(t, err)
		require.True(t, numbers.Receive())
		require.False(t, numbers.Receive())
		assert.Equal(t, connect.CodeResourceExhausted, connect.CodeOf(numbers.Err()))
		require.NoError(t, numbers.Close())
	}
	assert.Equal(t, "application/json", get(t, url+"/binder.Echo/Missing").Header.Get("Content-Type"), "described, as any request")
}
