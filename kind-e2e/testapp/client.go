package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"
)

// headerFlags collects `--header NAME=VALUE`.
type headerFlags http.Header

func (h headerFlags) String() string { return "" }

func (h headerFlags) Set(text string) error {
	name, value, found := strings.Cut(text, "=")
	if !found {
		return errors.New("want NAME=VALUE")
	}
	http.Header(h).Add(name, value)
	return nil
}

// transport speaks HTTP/1.1, HTTP/2 without TLS, or either with TLS. Without verification: whom a
// test talks to it finds out by the answer.
func transport(h2c bool) *http.Transport {
	protocols := new(http.Protocols)
	if h2c {
		protocols.SetUnencryptedHTTP2(true)
		protocols.SetHTTP2(true)
	} else {
		protocols.SetHTTP1(true)
	}
	return &http.Transport{Protocols: protocols, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
}

// newRequest makes a request with the headers; `Host` is the host asked for.
func newRequest(ctx context.Context, method, url string, headers http.Header, body io.Reader) (*http.Request, error) {
	request, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return nil, err
	}
	request.Header = headers.Clone()
	request.Host = request.Header.Get("Host")
	request.Header.Del("Host")
	return request, nil
}

// Answer is what `get` prints.
type Answer struct {
	Status   int         `json:"status"`
	Protocol string      `json:"protocol"`
	Headers  http.Header `json:"headers"`
	Body     string      `json:"body"`
}

// get makes one request. It succeeds with any status: an answer is an answer.
func get(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("get", flag.ExitOnError)
	headers := http.Header{}
	flags.Var(headerFlags(headers), "header", "NAME=VALUE; may be repeated")
	h2c := flags.Bool("h2c", false, "speak HTTP/2 from the start")
	timeout := flags.Duration("timeout", 5*time.Second, "for the whole request")
	url, err := parseOne(flags, args)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, *timeout)
	defer cancel()
	request, err := newRequest(ctx, http.MethodGet, url, headers, nil)
	if err != nil {
		return err
	}
	// Redirects are answers too.
	response, err := transport(*h2c).RoundTrip(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxBody))
	if err != nil {
		return err
	}
	return printJSON(Answer{response.StatusCode, response.Proto, response.Header, string(body)})
}

// exchange sends text and prints what came back, which for an echo is the same.
func exchange(ctx context.Context, network string, args []string) error {
	flags := flag.NewFlagSet(network, flag.ExitOnError)
	timeout := flags.Duration("timeout", 3*time.Second, "for the whole exchange")
	_ = flags.Parse(args)
	if flags.NArg() != 2 {
		return fmt.Errorf("%s: want HOST:PORT and TEXT", network)
	}
	text := []byte(flags.Arg(1))
	connection, err := dial(ctx, network, flags.Arg(0), *timeout)
	if err != nil {
		return err
	}
	defer connection.Close()
	if _, err := connection.Write(text); err != nil {
		return err
	}
	answer := make([]byte, len(text))
	if _, err := io.ReadFull(connection, answer); err != nil {
		return err
	}
	fmt.Println(string(answer))
	return nil
}

func resolve(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("resolve", flag.ExitOnError)
	timeout := flags.Duration("timeout", 3*time.Second, "for the whole lookup")
	name, err := parseOne(flags, args)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, *timeout)
	defer cancel()
	addresses, err := net.DefaultResolver.LookupHost(ctx, name)
	if err != nil {
		return err
	}
	slices.Sort(addresses)
	return printJSON(addresses)
}
