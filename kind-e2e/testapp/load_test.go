package main

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// faultyServer reads a request's head, then does what the test wants to the connection.
func faultyServer(t *testing.T, fault func(*net.TCPConn)) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				if _, err := http.ReadRequest(bufio.NewReader(connection)); err == nil {
					fault(connection.(*net.TCPConn))
				}
				connection.Close()
			}()
		}
	}()
	return "http://" + listener.Addr().String()
}

func closedPort(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener.Close()
	return "http://" + listener.Addr().String()
}

// Each injected failure is reported as what it is, and once.
func TestLoadReportsEachKindOfFailure(t *testing.T) {
	released := make(chan struct{})
	t.Cleanup(func() { close(released) })
	healthy := httptest.NewServer(handler(Identity{Cluster: "east", Pod: "web-0"}))
	t.Cleanup(healthy.Close)
	cases := map[Outcome]string{
		OK:          healthy.URL,
		ServerError: healthy.URL + "/status?code=503",
		Refused:     closedPort(t),
		Reset: faultyServer(t, func(c *net.TCPConn) {
			// Closing with unsent data thrown away sends RST.
			_ = c.SetLinger(0)
		}),
		TimedOut: faultyServer(t, func(*net.TCPConn) { <-released }),
		Truncated: faultyServer(t, func(c *net.TCPConn) {
			fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this")
		}),
		Other: "http://name.invalid",
	}
	for wanted, url := range cases {
		for _, keepAlive := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s,keep-alive=%t", wanted, keepAlive), func(t *testing.T) {
				client := newLoadClient(url, http.Header{}, false, keepAlive, 500*time.Millisecond)
				report := client.run(t.Context(), 1000, time.Millisecond)
				want := Report{}
				want.count(wanted)
				got := Report{
					Requests: report.Requests, OK: report.OK, Refused: report.Refused, Reset: report.Reset,
					TimedOut: report.TimedOut, Truncated: report.Truncated, ServerError: report.ServerError,
					Other: report.Other,
				}
				if fmt.Sprint(got) != fmt.Sprint(want) {
					t.Errorf("got %+v, want one %s; samples: %v", got, wanted, report.Samples)
				}
				if wanted == OK && (report.Clusters["east"] != 1 || report.Pods["web-0"] != 1) {
					t.Errorf("answers by cluster %v and pod %v", report.Clusters, report.Pods)
				}
				if wanted != OK && (len(report.Samples) != 1 || report.Samples[0].Outcome != wanted) {
					t.Errorf("samples: %v", report.Samples)
				}
			})
		}
	}
}

// A close without any answer, as of a server that is killed, is no success and no truncated answer.
func TestAnOrderlyCloseWithoutAnswerIsReset(t *testing.T) {
	url := faultyServer(t, func(*net.TCPConn) {})
	report := newLoadClient(url, http.Header{}, false, false, time.Second).run(t.Context(), 1000, time.Millisecond)
	if report.Reset != 1 || report.Failed() != 1 {
		t.Errorf("got %+v", report)
	}
}
