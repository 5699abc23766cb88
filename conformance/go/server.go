package main

import (
	"bufio"
	"fmt"
	"os"

	amqp "github.com/rabbitmq/amqp091-go"
)

// The exit code of a program that cannot run here.
const skipped = 77

func url() string {
	address := os.Getenv("FERRYMQ_AT")
	if address == "" {
		panic("set FERRYMQ_AT=HOST:PORT")
	}
	return "amqp://guest:guest@" + address + "/"
}

func connect() *amqp.Connection {
	return must(amqp.Dial(url()))
}

// mustBeOursToKill ends the program as skipped if the server must not be killed.
func mustBeOursToKill() {
	if os.Getenv("FERRYMQ_MAY_KILL") == "" {
		fmt.Println("skipped: this program kills its server, and the server at FERRYMQ_AT must not be killed")
		os.Exit(skipped)
	}
}

// killServer asks the runner to kill and restart the server, and returns when the server is ready again.
func killServer() {
	fmt.Println("kill the server")
	answers := bufio.NewScanner(os.Stdin)
	answers.Scan()
	equal("ready", answers.Text())
}
