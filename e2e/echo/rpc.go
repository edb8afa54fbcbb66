package main

import (
	"context"
	"fmt"
	"net/http"
	"path"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// rpcHandlers returns the remote procedures by their names. Each speaks gRPC-Web and
// the Connect protocol, for which HTTP/1.1 is enough.
func rpcHandlers() map[string]http.Handler {
	return map[string]http.Handler{
		"Join":  connect.NewClientStreamHandler("/binder.Echo/Join", join),
		"Count": connect.NewServerStreamHandler("/binder.Echo/Count", count),
	}
}

// rpc returns the handler of a procedure, or nil. A procedure's path ends with the
// names of its service and itself.
func (a *app) rpc(r *http.Request) http.Handler {
	directory, name := path.Split(r.URL.Path)
	if path.Base(directory) != "binder.Echo" {
		return nil
	}
	return a.procedures[name]
}

// join answers with all messages as one, and sends their number in a trailer.
func join(_ context.Context, stream *connect.ClientStream[wrapperspb.StringValue]) (*connect.Response[wrapperspb.StringValue], error) {
	all, n := "", 0
	for stream.Receive() {
		all += stream.Msg().GetValue()
		n++
	}
	if err := stream.Err(); err != nil {
		return nil, err
	}
	response := connect.NewResponse(wrapperspb.String(all))
	response.Trailer().Set("Messages", fmt.Sprint(n))
	return response, nil
}

// count sends the number 1 and waits until the client has gone. Asked for 0, it
// returns an error after the number 1: an error that the body ends with.
func count(ctx context.Context, request *connect.Request[wrapperspb.Int64Value], stream *connect.ServerStream[wrapperspb.Int64Value]) error {
	if err := stream.Send(wrapperspb.Int64(1)); err != nil {
		return err
	}
	if request.Msg.GetValue() == 0 {
		err := connect.NewError(connect.CodeResourceExhausted, fmt.Errorf("no more numbers"))
		err.Meta().Set("Last", "1")
		return err
	}
	<-ctx.Done()
	return ctx.Err()
}
