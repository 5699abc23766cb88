package main

import (
	"context"

	amqp "github.com/rabbitmq/amqp091-go"
)

// transactions tests that the publishes and acks of a transaction take effect when it is committed, and not before.
func transactions() {
	const queue = "go transactions"
	connection := connect()
	defer connection.Close()
	watching := must(connection.Channel())
	must(watching.QueueDeclare(queue, true, false, false, false, nil))
	channel := must(connection.Channel())
	check(channel.Tx())
	put := func(body string) {
		check(channel.PublishWithContext(context.Background(), "", queue, false, false, persistent(body)))
	}
	waiting := func() int {
		return must(watching.QueueDeclarePassive(queue, true, false, false, false, nil)).Messages
	}
	take := func(from *amqp.Channel, autoAck bool) amqp.Delivery {
		delivery, found, problem := from.Get(queue, autoAck)
		check(problem)
		that(found, "there is a message")
		return delivery
	}

	put("rolled back")
	check(channel.TxRollback())
	equal(0, waiting())

	put("first")
	put("second")
	equal(0, waiting())
	check(channel.TxCommit())
	equal(2, waiting())

	// After a rollback the ack has no effect: the message can be acked again, and it is removed only then.
	first := take(channel, false)
	check(first.Ack(false))
	check(channel.TxRollback())
	check(first.Ack(false))
	put("third")
	check(channel.TxCommit())
	check(channel.Close())

	equal("second", string(take(watching, true).Body))
	equal("third", string(take(watching, true).Body))
	equal(0, must(watching.QueueDelete(queue, false, true, false)))
}
