package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// echoMethod takes and gives a google.protobuf.StringValue, so that no code has to be generated.
const (
	echoService      = "fedgate.test.Echo"
	echoMethod       = "Echo"
	echoStreamMethod = "EchoStream"
)

// EchoRPC is the text in the answer, as JSON.
type EchoRPC struct {
	Identity
	Text     string      `json:"text"`
	Metadata metadata.MD `json:"metadata"`
}

// registerEcho adds the echo service and the standard health service.
func registerEcho(server *grpc.Server, self Identity) {
	answer := func(ctx context.Context, request *wrapperspb.StringValue) (*wrapperspb.StringValue, error) {
		received, _ := metadata.FromIncomingContext(ctx)
		text, err := json.Marshal(EchoRPC{Identity: self, Text: request.Value, Metadata: received})
		return wrapperspb.String(string(text)), err
	}
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: echoService,
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{
			MethodName: echoMethod,
			Handler: func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
				request := new(wrapperspb.StringValue)
				if err := decode(request); err != nil {
					return nil, err
				}
				return answer(ctx, request)
			},
		}},
		Streams: []grpc.StreamDesc{{
			StreamName: echoStreamMethod, ClientStreams: true, ServerStreams: true,
			Handler: func(_ any, stream grpc.ServerStream) error { return echoMessages(stream) },
		}},
	}, nil)
	healthpb.RegisterHealthServer(server, health.NewServer())
}

// echoMessages sends each message back as it comes.
func echoMessages(stream grpc.ServerStream) error {
	for {
		message := new(wrapperspb.StringValue)
		if err := stream.RecvMsg(message); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := stream.SendMsg(message); err != nil {
			return err
		}
	}
}

// callGRPC makes one call and prints the answer.
func callGRPC(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("grpc", flag.ExitOnError)
	text := flags.String("text", "hello", "what to send")
	authority := flags.String("authority", "", "the host that is asked for, if not that of the address")
	timeout := flags.Duration("timeout", 5*time.Second, "for the whole call")
	address, err := parseOne(flags, args)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, *timeout)
	defer cancel()
	options := []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}
	if *authority != "" {
		options = append(options, grpc.WithAuthority(*authority))
	}
	connection, err := grpc.NewClient(address, options...)
	if err != nil {
		return err
	}
	defer connection.Close()
	answer := new(wrapperspb.StringValue)
	if err := connection.Invoke(ctx, "/"+echoService+"/"+echoMethod, wrapperspb.String(*text), answer); err != nil {
		return err
	}
	return printJSON(json.RawMessage(answer.Value))
}

// parseOne parses flags that may stand before or after the one argument.
func parseOne(flags *flag.FlagSet, args []string) (string, error) {
	_ = flags.Parse(args)
	if flags.NArg() == 0 {
		return "", errors.New(flags.Name() + ": one argument is missing")
	}
	argument := flags.Arg(0)
	_ = flags.Parse(flags.Args()[1:])
	if flags.NArg() > 0 {
		return "", errors.New(flags.Name() + ": too many arguments: " + flags.Arg(0))
	}
	return argument, nil
}
