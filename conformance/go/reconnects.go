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

// reconnects: the server is killed under a publisher and a consumer, which connect again when NotifyClose says that
// their connection is gone. Every message comes. The publisher holds back its second half until the server was killed,
// so that neither can be done before.
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

// publishAll publishes until everything is confirmed; gives how many connections it took.
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

// publishedOne says whether the message was confirmed; if not, the connection is lost.
func publishedOne(channel *amqp.Channel, number int) bool {
	message := persistent(strconv.Itoa(number))
	confirmation, problem := channel.PublishWithDeferredConfirm("", queueThatStays, false, false, message)
	if problem != nil {
		return false
	}
	return confirmation.Wait()
}

// consumeAll consumes until every message has come; gives how many connections it took.
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
			// Where it fails the connection is lost, and the message comes again.
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

// connectAgain tries until the server is there.
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
