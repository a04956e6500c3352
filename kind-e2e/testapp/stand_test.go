package main

import (
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
)

func listener(t *testing.T) net.Listener {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	return listener
}

func stood(t *testing.T, open opener, address string) Standing {
	t.Helper()
	exchange, err := open(t.Context(), address, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	return standWith(context.Background(), exchange, time.Millisecond, 100*time.Millisecond)
}

func TestOneConnectionStandsForTheWholeTime(t *testing.T) {
	tcp := listener(t)
	go func() { _ = echoStreams(tcp) }()
	rpc, server := listener(t), grpc.NewServer()
	registerEcho(server, Identity{})
	go func() { _ = server.Serve(rpc) }()
	t.Cleanup(server.Stop)
	for name, standing := range map[string]Standing{
		"tcp":  stood(t, openTCP, tcp.Addr().String()),
		"grpc": stood(t, openGRPC, rpc.Addr().String()),
	} {
		if standing.Failure != "" || standing.Exchanges < 5 || standing.HeldMs < 100 {
			t.Errorf("%s: %+v", name, standing)
		}
	}
}

func TestTheEndOfAConnectionIsReported(t *testing.T) {
	tcp := listener(t)
	go func() {
		connection, err := tcp.Accept()
		if err == nil {
			_, _ = io.CopyN(connection, connection, int64(len("exchange 0\n")))
			_ = connection.Close()
		}
	}()
	standing := stood(t, openTCP, tcp.Addr().String())
	if standing.Exchanges != 1 || standing.Failure == "" {
		t.Errorf("%+v", standing)
	}
	rpc, server := listener(t), grpc.NewServer()
	registerEcho(server, Identity{})
	go func() { _ = server.Serve(rpc) }()
	time.AfterFunc(30*time.Millisecond, server.Stop)
	standing = stood(t, openGRPC, rpc.Addr().String())
	if standing.Failure == "" || !strings.Contains(standing.Failure, "rpc error") {
		t.Errorf("%+v", standing)
	}
}
