package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// maxInFlight bounds requests that wait for an answer; when it is reached, the load waits too, and the
// report says so in `late`.
const maxInFlight = 1000

// maxSamples bounds the failures that are reported with their time and text.
const maxSamples = 20

// Outcome is what became of a request, as its client sees it.
type Outcome string

const (
	// OK: a whole answer with a status below 500.
	OK Outcome = "ok"
	// Refused: no connection, because nobody listens.
	Refused Outcome = "refused"
	// Reset: the connection was lost before an answer began.
	Reset Outcome = "reset"
	// TimedOut: no whole answer within the time for a request.
	TimedOut Outcome = "timed_out"
	// Truncated: an answer began and did not end.
	Truncated Outcome = "truncated"
	// ServerError: a whole answer with a status from 500.
	ServerError Outcome = "server_error"
	// Other: none of these, such as a name that does not resolve; see the samples.
	Other Outcome = "other"
)

// Report is what `load` prints. Every request is counted in exactly one of the outcomes.
type Report struct {
	Requests    int `json:"requests"`
	OK          int `json:"ok"`
	Refused     int `json:"refused"`
	Reset       int `json:"reset"`
	TimedOut    int `json:"timed_out"`
	Truncated   int `json:"truncated"`
	ServerError int `json:"server_error"`
	Other       int `json:"other"`
	// Late counts requests that were sent late, because too many waited.
	Late int `json:"late"`
	// Clusters counts the answers of testapps by cluster.
	Clusters map[string]int `json:"clusters"`
	// Pods counts them by pod.
	Pods map[string]int `json:"pods"`
	// LongestGapMs is the longest time between two successes, or from the start to the first.
	LongestGapMs int64   `json:"longest_gap_ms"`
	P50Ms        float64 `json:"p50_ms"`
	P99Ms        float64 `json:"p99_ms"`
	MaxMs        float64 `json:"max_ms"`
	// Samples are the first failures.
	Samples []Sample `json:"samples"`
}

// Sample is one failure.
type Sample struct {
	AtMs    int64   `json:"at_ms"`
	Outcome Outcome `json:"outcome"`
	Text    string  `json:"text"`
}

// Failed is the number of requests without success.
func (r *Report) Failed() int { return r.Requests - r.OK }

// load sends requests at a steady rate until the duration is over or it is asked to end, waits for the
// answers and prints the report. Failures are its result, not an error of its own.
func load(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("load", flag.ExitOnError)
	headers := http.Header{}
	flags.Var(headerFlags(headers), "header", "NAME=VALUE; may be repeated")
	h2c := flags.Bool("h2c", false, "speak HTTP/2 from the start")
	keepAlive := flags.Bool("keep-alive", false, "reuse connections, instead of a new one for each request")
	rate := flags.Float64("rate", 50, "requests per second")
	duration := flags.Duration("duration", 10*time.Second, "how long to send requests")
	timeout := flags.Duration("timeout", 5*time.Second, "for each request")
	url, err := parseOne(flags, args)
	if err != nil {
		return err
	}
	if *rate <= 0 {
		return errors.New("rate: want a number above 0")
	}
	client := newLoadClient(url, headers, *h2c, *keepAlive, *timeout)
	return printJSON(client.run(ctx, *rate, *duration))
}

type loadClient struct {
	url       string
	headers   http.Header
	timeout   time.Duration
	transport *http.Transport
	method    string

	started   time.Time
	mutex     sync.Mutex
	report    Report
	latencies []time.Duration
	successes []time.Duration
}

func newLoadClient(url string, headers http.Header, h2c, keepAlive bool, timeout time.Duration) *loadClient {
	client := &loadClient{
		url: url, headers: headers, timeout: timeout, transport: transport(h2c), method: http.MethodGet,
		started: time.Now(),
		report:  Report{Clusters: map[string]int{}, Pods: map[string]int{}, Samples: []Sample{}},
	}
	client.transport.MaxIdleConnsPerHost = maxInFlight
	client.transport.DisableKeepAlives = !keepAlive
	if keepAlive {
		// Go repeats a GET whose reused connection broke; a failure would be hidden.
		client.method = http.MethodPost
	}
	return client
}

// run sends each request at its time, whether or not earlier ones are answered: a load that waits for
// answers stops asking just when there are failures to count.
func (c *loadClient) run(ctx context.Context, rate float64, duration time.Duration) *Report {
	var waiting sync.WaitGroup
	slots := make(chan struct{}, maxInFlight)
	interval := time.Duration(float64(time.Second) / rate)
	c.started = time.Now()
	for due := time.Duration(0); due < duration && ctx.Err() == nil; due += interval {
		select {
		case <-time.After(due - time.Since(c.started)):
		case <-ctx.Done():
			continue
		}
		select {
		case slots <- struct{}{}:
		default:
			slots <- struct{}{}
			c.mutex.Lock()
			c.report.Late++
			c.mutex.Unlock()
		}
		waiting.Go(func() {
			c.request()
			<-slots
		})
	}
	waiting.Wait()
	return c.finish()
}

// request makes one and counts it. The end of the load does not cancel it.
func (c *loadClient) request() {
	sent := time.Now()
	outcome, from, err := c.attempt()
	took := time.Since(sent)

	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.report.count(outcome)
	if outcome == OK {
		c.latencies = append(c.latencies, took)
		c.successes = append(c.successes, time.Since(c.started))
		if from.Pod != "" {
			c.report.Clusters[from.Cluster]++
			c.report.Pods[from.Pod]++
		}
		return
	}
	if len(c.report.Samples) < maxSamples {
		at := sent.Sub(c.started).Milliseconds()
		c.report.Samples = append(c.report.Samples, Sample{at, outcome, err.Error()})
	}
}

func (c *loadClient) attempt() (Outcome, Identity, error) {
	ctx, cancel := context.WithTimeout(context.Background(), c.timeout)
	defer cancel()
	var body io.Reader
	if c.method == http.MethodPost {
		// Of a type that net/http can't rewind, so it can't send it twice.
		body = io.MultiReader(strings.NewReader("load"))
	}
	request, err := newRequest(ctx, c.method, c.url, c.headers, body)
	if err != nil {
		return Other, Identity{}, err
	}
	response, err := c.transport.RoundTrip(request)
	if err != nil {
		return beforeAnswer(err), Identity{}, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		if isTimeout(err) {
			return TimedOut, Identity{}, err
		}
		return Truncated, Identity{}, err
	}
	if response.StatusCode >= http.StatusInternalServerError {
		return ServerError, Identity{}, errors.New(response.Status)
	}
	var from Identity
	_ = json.Unmarshal(text, &from)
	return OK, from, nil
}

// beforeAnswer classifies an error that came instead of an answer's head.
func beforeAnswer(err error) Outcome {
	var resolution *net.DNSError
	switch {
	case isTimeout(err):
		return TimedOut
	case errors.As(err, &resolution):
		return Other
	case errors.Is(err, syscall.ECONNREFUSED):
		return Refused
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, io.EOF),
		errors.Is(err, io.ErrUnexpectedEOF), strings.Contains(err.Error(), "http2:"),
		strings.Contains(err.Error(), "stream error"):
		// An orderly close without an answer loses the request as well.
		return Reset
	default:
		return Other
	}
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) ||
		errors.As(err, &timeout) && timeout.Timeout()
}

func (r *Report) count(outcome Outcome) {
	r.Requests++
	switch outcome {
	case OK:
		r.OK++
	case Refused:
		r.Refused++
	case Reset:
		r.Reset++
	case TimedOut:
		r.TimedOut++
	case Truncated:
		r.Truncated++
	case ServerError:
		r.ServerError++
	case Other:
		r.Other++
	}
}

func (c *loadClient) finish() *Report {
	slices.Sort(c.successes)
	previous := time.Duration(0)
	for _, at := range c.successes {
		c.report.LongestGapMs = max(c.report.LongestGapMs, (at - previous).Milliseconds())
		previous = at
	}
	if slices.Sort(c.latencies); len(c.latencies) > 0 {
		last := len(c.latencies) - 1
		c.report.P50Ms = milliseconds(c.latencies[last/2])
		c.report.P99Ms = milliseconds(c.latencies[last*99/100])
		c.report.MaxMs = milliseconds(c.latencies[last])
	}
	return &c.report
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
