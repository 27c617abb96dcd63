// A server of grpc.health.v1 by Go's own implementation. Prints the addresses it listens on, one a line: in the clear, with
// TLS, and one that serves no health at all. It ends with its standard input.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"os"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
)

// Answers for the service "authority" by whom the request names.
func byAuthority(wanted string) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		check, ok := req.(*healthpb.HealthCheckRequest)
		if !ok || check.Service != "authority" {
			return next(ctx, req)
		}
		status := healthpb.HealthCheckResponse_NOT_SERVING
		if md, ok := metadata.FromIncomingContext(ctx); ok && len(md[":authority"]) == 1 && md[":authority"][0] == wanted {
			status = healthpb.HealthCheckResponse_SERVING
		}
		return &healthpb.HealthCheckResponse{Status: status}, nil
	}
}

func serve(server *grpc.Server) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(listener.Addr())
	go func() { log.Fatal(server.Serve(listener)) }()
}

func main() {
	cert := flag.String("cert", "", "file of the certificate, in PEM")
	key := flag.String("key", "", "file of its key")
	authority := flag.String("authority", "", "what a request for the service 'authority' must name")
	flag.Parse()
	secured, err := credentials.NewServerTLSFromFile(*cert, *key)
	if err != nil {
		log.Fatal(err)
	}
	for _, options := range [][]grpc.ServerOption{{}, {grpc.Creds(secured)}} {
		server := grpc.NewServer(append(options, grpc.UnaryInterceptor(byAuthority(*authority)))...)
		statuses := health.NewServer()
		statuses.SetServingStatus("up", healthpb.HealthCheckResponse_SERVING)
		statuses.SetServingStatus("down", healthpb.HealthCheckResponse_NOT_SERVING)
		healthpb.RegisterHealthServer(server, statuses)
		serve(server)
	}
	serve(grpc.NewServer())
	_, _ = io.Copy(io.Discard, os.Stdin)
}
