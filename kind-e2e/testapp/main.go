// Command testapp is the application in the test clusters, and the client that tests run beside it:
// an image made from nothing has no curl. Answers and reports are JSON, so that tests need not parse
// prose.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"
)

const usage = `usage: testapp VERB [FLAGS]
  serve                    HTTP/1.1 and h2c on 8080, gRPC on 9090, TCP echo on 9000, UDP echo on 9001
  get URL                  one HTTP request; prints status, headers and body
  grpc HOST:PORT           one call of the echo service
  tcp HOST:PORT TEXT       sends text and prints what comes back
  udp HOST:PORT TEXT
  resolve NAME             addresses of a name, sorted
  load URL                 many requests; counts what became of each
  stand tcp|grpc HOST:PORT one connection or stream that is kept open; says what ended it
Flags of a verb: testapp VERB --help`

var verbs = map[string]func(ctx context.Context, args []string) error{
	"serve":   serve,
	"get":     get,
	"grpc":    callGRPC,
	"tcp":     func(ctx context.Context, args []string) error { return exchange(ctx, "tcp", args) },
	"udp":     func(ctx context.Context, args []string) error { return exchange(ctx, "udp", args) },
	"resolve": resolve,
	"load":    load,
	"stand":   stand,
}

func main() {
	if len(os.Args) < 2 || verbs[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, usage)
		os.Exit(2)
	}
	// As a container's first process it would ignore SIGTERM otherwise.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	err := verbs[os.Args[1]](ctx, os.Args[2:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "testapp:", err)
		os.Exit(1)
	}
}

// Identity says which instance answered.
type Identity struct {
	Cluster   string `json:"cluster"`
	Namespace string `json:"namespace"`
	Pod       string `json:"pod"`
}

// identity comes from the environment, into which a pod's manifest puts it.
func identity() Identity {
	pod := os.Getenv("POD_NAME")
	if pod == "" {
		pod, _ = os.Hostname()
	}
	return Identity{Cluster: os.Getenv("CLUSTER_NAME"), Namespace: os.Getenv("POD_NAMESPACE"), Pod: pod}
}

func printJSON(value any) error {
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetEscapeHTML(false)
	return encoder.Encode(value)
}

func dial(ctx context.Context, network, address string, timeout time.Duration) (net.Conn, error) {
	dialer := net.Dialer{Timeout: timeout}
	connection, err := dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return connection, connection.SetDeadline(time.Now().Add(timeout))
}
