package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"log"
	"net"
	"net/http"
	"strconv"
	"time"

	"google.golang.org/grpc"
)

// maxBody is the most that is read of a request's body, or of the answer of another service.
const maxBody = 1 << 20

// maxDelay bounds what `/delay` waits.
const maxDelay = time.Minute

// serve runs all servers until one fails or the process is asked to end.
func serve(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("serve", flag.ExitOnError)
	httpAddress := flags.String("http", ":8080", "address for HTTP/1.1 and HTTP/2 without TLS")
	grpcAddress := flags.String("grpc", ":9090", "address for gRPC")
	tcpAddress := flags.String("tcp", ":9000", "address for TCP echo")
	udpAddress := flags.String("udp", ":9001", "address for UDP echo")
	// Long enough for a cluster to learn that this pod is going.
	drain := flags.Duration("drain", 5*time.Second, "how long to go on serving after SIGTERM")
	_ = flags.Parse(args)

	failed := make(chan error, 4)
	web := &http.Server{Handler: handler(identity()), Protocols: new(http.Protocols)}
	web.Protocols.SetHTTP1(true)
	web.Protocols.SetUnencryptedHTTP2(true)
	listen := func(address string, run func(net.Listener) error) {
		listener, err := net.Listen("tcp", address)
		if err != nil {
			failed <- err
			return
		}
		go func() { failed <- run(listener) }()
	}
	listen(*httpAddress, web.Serve)
	rpc := grpc.NewServer()
	registerEcho(rpc, identity())
	listen(*grpcAddress, rpc.Serve)
	listen(*tcpAddress, echoStreams)
	datagrams, err := net.ListenPacket("udp", *udpAddress)
	if err != nil {
		return err
	}
	go func() { failed <- echoDatagrams(datagrams) }()

	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	log.Printf("asked to end; serving for another %s", *drain)
	time.Sleep(*drain)
	rpc.Stop()
	closing, cancel := context.WithTimeout(context.Background(), *drain)
	defer cancel()
	if err := web.Shutdown(closing); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}

// Echo is the answer to an HTTP request: who answered, and what arrived.
type Echo struct {
	Identity
	Method   string      `json:"method"`
	Host     string      `json:"host"`
	Path     string      `json:"path"`
	Query    string      `json:"query,omitempty"`
	Protocol string      `json:"protocol"`
	Remote   string      `json:"remote"`
	Headers  http.Header `json:"headers"`
	Body     string      `json:"body,omitempty"`
	// Called is what the service of `/call?url=` answered.
	Called *Called `json:"called,omitempty"`
}

// Called is another service's answer, nested in ours.
type Called struct {
	URL    string `json:"url"`
	Status int    `json:"status,omitempty"`
	// Answer is its body: an Echo, when it is a testapp as well.
	Answer json.RawMessage `json:"answer,omitempty"`
	Error  string          `json:"error,omitempty"`
}

// handler echoes every request. Some paths do something before:
//
//	/call?url=URL     calls another service and nests its answer; 502 if it gave none or a 5xx
//	/status?code=503  answers with that status
//	/delay?ms=1000    waits
//	/bytes?count=N    answers with N bytes instead
func handler(self Identity) http.Handler {
	echo := func(w http.ResponseWriter, r *http.Request, status int, called *Called) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
		if err != nil {
			http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(Echo{
			Identity: self, Method: r.Method, Host: r.Host, Path: r.URL.Path, Query: r.URL.RawQuery,
			Protocol: r.Proto, Remote: r.RemoteAddr, Headers: r.Header, Body: string(body), Called: called,
		})
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { echo(w, r, http.StatusOK, nil) })
	mux.HandleFunc("/call", func(w http.ResponseWriter, r *http.Request) {
		called := call(r)
		status := http.StatusOK
		if called.Error != "" || called.Status >= http.StatusInternalServerError {
			status = http.StatusBadGateway
		}
		echo(w, r, status, &called)
	})
	mux.HandleFunc("/status", func(w http.ResponseWriter, r *http.Request) {
		code, err := strconv.Atoi(r.URL.Query().Get("code"))
		if err != nil || code < 200 || code > 599 {
			http.Error(w, "code: want a number from 200 to 599", http.StatusBadRequest)
			return
		}
		echo(w, r, code, nil)
	})
	mux.HandleFunc("/delay", func(w http.ResponseWriter, r *http.Request) {
		milliseconds, _ := strconv.Atoi(r.URL.Query().Get("ms"))
		select {
		case <-time.After(min(time.Duration(milliseconds)*time.Millisecond, maxDelay)):
			echo(w, r, http.StatusOK, nil)
		case <-r.Context().Done():
		}
	})
	mux.HandleFunc("/bytes", func(w http.ResponseWriter, r *http.Request) {
		count, err := strconv.ParseInt(r.URL.Query().Get("count"), 10, 64)
		if err != nil || count < 0 {
			http.Error(w, "count: want a number of bytes", http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Length", strconv.FormatInt(count, 10))
		_, _ = io.CopyN(w, zeros{}, count)
	})
	return mux
}

// call asks the service that the request names, with the request's deadline and trace.
func call(r *http.Request) Called {
	called := Called{URL: r.URL.Query().Get("url")}
	request, err := http.NewRequestWithContext(r.Context(), http.MethodGet, called.URL, nil)
	if err != nil {
		called.Error = err.Error()
		return called
	}
	for _, name := range []string{"Traceparent", "Tracestate"} {
		if value := r.Header.Get(name); value != "" {
			request.Header.Set(name, value)
		}
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		called.Error = err.Error()
		return called
	}
	defer response.Body.Close()
	called.Status = response.StatusCode
	body, err := io.ReadAll(io.LimitReader(response.Body, maxBody))
	if err != nil {
		called.Error = err.Error()
	} else if json.Valid(body) {
		called.Answer = body
	} else {
		called.Answer, _ = json.Marshal(string(body))
	}
	return called
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func echoStreams(listener net.Listener) error {
	for {
		connection, err := listener.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer connection.Close()
			_, _ = io.Copy(connection, connection)
		}()
	}
}

func echoDatagrams(socket net.PacketConn) error {
	buffer := make([]byte, 1<<16)
	for {
		n, from, err := socket.ReadFrom(buffer)
		if err != nil {
			return err
		}
		_, _ = socket.WriteTo(buffer[:n], from)
	}
}
