package main

import (
	"strconv"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

const (
	queueThatStays = "go reconnects"
	messageCount   = 200
)

// reconnects tests a publisher and a consumer whose server is killed. They connect again when NotifyClose reports that
// their connection is lost. All messages come. The publisher sends the second half of its messages only after the kill, so
// that neither can finish before.
func reconnects() {
	mustBeOursToKill()
	quarter, finished := make(chan struct{}), make(chan int)
	published, killed := make(chan int), make(chan struct{})
	go func() { published <- publishAll(killed) }()
	go func() { finished <- consumeAll(quarter) }()
	<-quarter
	killServer()
	close(killed)
	that(<-published >= 2, "the publisher has connected again")
	that(<-finished >= 2, "the consumer has connected again")
}

// publishAll publishes until all messages are confirmed. It returns how many connections it needed.
func publishAll(killed <-chan struct{}) (connections int) {
	for next := 0; next < messageCount; {
		connection, channel := connectAgain()
		connections++
		lost := connection.NotifyClose(make(chan *amqp.Error, 1))
		for next < messageCount && publishedOne(channel, next) {
			next++
			if next == messageCount/2 {
				<-killed
			}
		}
		if next < messageCount {
			<-lost
		} else {
			check(connection.Close())
		}
	}
	return connections
}

// publishedOne returns whether the message was confirmed. If not, the connection is lost.
func publishedOne(channel *amqp.Channel, number int) bool {
	message := persistent(strconv.Itoa(number))
	confirmation, problem := channel.PublishWithDeferredConfirm("", queueThatStays, false, false, message)
	if problem != nil {
		return false
	}
	return confirmation.Wait()
}

// consumeAll consumes until all messages have come. It returns how many connections it needed.
func consumeAll(quarter chan<- struct{}) (connections int) {
	seen := map[string]bool{}
	for len(seen) < messageCount {
		connection, channel := connectAgain()
		connections++
		lost := connection.NotifyClose(make(chan *amqp.Error, 1))
		check(channel.Qos(10, 0, false))
		deliveries, problem := channel.Consume(queueThatStays, "", false, false, false, false, nil)
		for problem == nil && len(seen) < messageCount {
			delivery, more := <-deliveries
			if !more {
				break
			}
			seen[string(delivery.Body)] = true
			if len(seen) == messageCount/4 {
				close(quarter)
				quarter = make(chan struct{})
			}
			// If the ack fails, the connection is lost, and the message comes again.
			_ = delivery.Ack(false)
		}
		if len(seen) < messageCount {
			<-lost
		} else {
			check(connection.Close())
		}
	}
	return connections
}

// connectAgain tries to connect until the server accepts the connection.
func connectAgain() (*amqp.Connection, *amqp.Channel) {
	for {
		connection, problem := amqp.Dial(url())
		if problem == nil {
			channel, problem := connection.Channel()
			if problem == nil {
				_, problem = channel.QueueDeclare(queueThatStays, true, false, false, false, nil)
			}
			if problem == nil {
				problem = channel.Confirm(false)
			}
			if problem == nil {
				return connection, channel
			}
		}
		time.Sleep(20 * time.Millisecond)
	}
}
