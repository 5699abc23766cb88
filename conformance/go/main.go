// Test programs with amqp091-go, RabbitMQ's client for Go. See conformance/README.md.
package main

import "os"

func main() {
	programs := map[string]func(){
		"messages":     messages,
		"transactions": transactions,
		"reconnects":   reconnects,
	}
	program, known := programs[os.Args[1]]
	that(known, "there is no program of this name")
	program()
}
