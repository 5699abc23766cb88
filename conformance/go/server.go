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
		panic("say which server: FERRYMQ_AT=HOST:PORT")
	}
	return "amqp://guest:guest@" + address + "/"
}

func connect() *amqp.Connection {
	return must(amqp.Dial(url()))
}

// mustBeOursToKill ends the program as skipped where the server is not ours to kill.
func mustBeOursToKill() {
	if os.Getenv("FERRYMQ_MAY_KILL") == "" {
		fmt.Println("skipped: this program kills its server, and FERRYMQ_AT names one that is not ours to kill")
		os.Exit(skipped)
	}
}

// killServer has the server killed and restarted, and returns when it is ready again.
func killServer() {
	fmt.Println("kill the server")
	answers := bufio.NewScanner(os.Stdin)
	answers.Scan()
	equal("ready", answers.Text())
}
