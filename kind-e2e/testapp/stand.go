package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// Standing is what `stand` prints: what one connection or stream went through.
type Standing struct {
	// Exchanges is how many texts came back as they were sent.
	Exchanges int `json:"exchanges"`
	// HeldMs is how long it stood.
	HeldMs int64 `json:"held_ms"`
	// LongestMs is the longest that an exchange took.
	LongestMs int64 `json:"longest_ms"`
	// Failure says why it ended before its time; empty if it did not.
	Failure string `json:"failure"`
}

// stand keeps one connection or stream open, and sends a text through it again and again. What ends it
// is a result, not an error of its own: nothing is dialled a second time.
func stand(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("stand", flag.ExitOnError)
	every := flags.Duration("every", 250*time.Millisecond, "pause between two exchanges")
	duration := flags.Duration("duration", 10*time.Second, "how long to stand")
	timeout := flags.Duration("timeout", 5*time.Second, "for each exchange")
	_ = flags.Parse(args)
	if flags.NArg() != 2 {
		return errors.New("stand: want tcp or grpc, and HOST:PORT")
	}
	open, found := map[string]opener{"tcp": openTCP, "grpc": openGRPC}[flags.Arg(0)]
	if !found {
		return fmt.Errorf("stand: %q: want tcp or grpc", flags.Arg(0))
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	exchange, err := open(ctx, flags.Arg(1), *timeout)
	if err != nil {
		return err
	}
	return printJSON(standWith(ctx, exchange, *every, *duration))
}

// exchanger sends a text and gives what came back for it.
type exchanger func(text string) (string, error)

type opener func(ctx context.Context, address string, timeout time.Duration) (exchanger, error)

func standWith(ctx context.Context, exchange exchanger, every, duration time.Duration) Standing {
	var standing Standing
	started := time.Now()
	for time.Since(started) < duration && ctx.Err() == nil {
		text := fmt.Sprintf("exchange %d", standing.Exchanges)
		sent := time.Now()
		back, err := exchange(text)
		standing.LongestMs = max(standing.LongestMs, time.Since(sent).Milliseconds())
		if err == nil && back != text {
			err = fmt.Errorf("%q came back for %q", back, text)
		}
		if err != nil {
			standing.Failure = err.Error()
			break
		}
		standing.Exchanges++
		select {
		case <-time.After(every):
		case <-ctx.Done():
		}
	}
	standing.HeldMs = time.Since(started).Milliseconds()
	return standing
}

func openTCP(ctx context.Context, address string, timeout time.Duration) (exchanger, error) {
	connection, err := dial(ctx, "tcp", address, timeout)
	if err != nil {
		return nil, err
	}
	lines := bufio.NewReader(connection)
	return func(text string) (string, error) {
		if err := connection.SetDeadline(time.Now().Add(timeout)); err != nil {
			return "", err
		}
		if _, err := io.WriteString(connection, text+"\n"); err != nil {
			return "", err
		}
		line, err := lines.ReadString('\n')
		return line[:max(0, len(line)-1)], err
	}, nil
}

// openGRPC opens one stream of the echo service.
func openGRPC(ctx context.Context, address string, timeout time.Duration) (exchanger, error) {
	client, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	description := &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}
	stream, err := client.NewStream(ctx, description, "/"+echoService+"/"+echoStreamMethod)
	if err != nil {
		return nil, err
	}
	return func(text string) (string, error) {
		if err := stream.SendMsg(wrapperspb.String(text)); err != nil && !errors.Is(err, io.EOF) {
			return "", err
		}
		// A stream has no deadline for a message of its own.
		type received struct {
			text string
			err  error
		}
		answers := make(chan received, 1)
		go func() {
			answer := new(wrapperspb.StringValue)
			err := stream.RecvMsg(answer)
			answers <- received{answer.Value, err}
		}()
		select {
		case answer := <-answers:
			return answer.text, answer.err
		case <-time.After(timeout):
			return "", fmt.Errorf("no answer within %s", timeout)
		}
	}, nil
}
