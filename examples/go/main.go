// SPDX-License-Identifier: Apache-2.0

// Explains a text over gRPC. docs/clients.md says how the package limpidv1 is
// made from the protos.
//
// Usage: go run . HOST:PORT MODEL TEXT
package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"log"
	"math"
	"os"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	limpidv1 "example.com/limpid/limpidv1"
)

// Retries what the servers have not begun; they answer UNAVAILABLE while they
// stop or load.
const serviceConfig = `{
  "loadBalancingConfig": [{"round_robin": {}}],
  "methodConfig": [{
    "name": [{"service": "limpid.v1.ExplanationService"}],
    "retryPolicy": {
      "maxAttempts": 4, "initialBackoff": "0.1s", "maxBackoff": "2s",
      "backoffMultiplier": 2, "retryableStatusCodes": ["UNAVAILABLE"]
    }
  }]
}`

func main() {
	if len(os.Args) != 4 {
		log.Fatal("usage: go run . HOST:PORT MODEL TEXT")
	}
	connection, err := grpc.Dial(os.Args[1],
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(serviceConfig),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)))
	if err != nil {
		log.Fatal(err)
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()

	reply, err := limpidv1.NewExplanationServiceClient(connection).Explain(ctx,
		&limpidv1.ExplainRequest{
			Model: os.Args[2],
			Input: &limpidv1.Input{Kind: &limpidv1.Input_Text{Text: os.Args[3]}},
		})
	if err != nil {
		for _, detail := range status.Convert(err).Details() {
			if bad, ok := detail.(*errdetails.BadRequest); ok {
				for _, one := range bad.FieldViolations {
					log.Printf("%s: %s", one.Field, one.Description)
				}
			}
		}
		log.Fatal(err)
	}
	for _, tensor := range reply.Tensors {
		if tensor.Header.Name != "attribution" {
			continue
		}
		for i, token := range reply.Header.Tokens {
			bits := binary.LittleEndian.Uint32(tensor.Data[4*i:])
			fmt.Printf("%+.4f %q\n", math.Float32frombits(bits), token.Piece)
		}
	}
}
