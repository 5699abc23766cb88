package main

import (
	"context"
	"sort"
	"strconv"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// messages tests all properties, confirms, returns, all ways to settle, and cancel notifications.
func messages() {
	connection := connect()
	defer connection.Close()
	properties(connection)
	settlements(connection)
	returns(connection)
	prefetch(connection)
	channelErrors(connection)
	cancelled(connection)
}

func properties(connection *amqp.Connection) {
	channel := must(connection.Channel())
	queue := must(channel.QueueDeclare("", false, false, true, false, nil)).Name
	that(strings.HasPrefix(queue, "amq.gen-"), queue)
	at := time.Unix(1_700_000_000, 0)
	sent := amqp.Publishing{
		Headers: amqp.Table{
			"bool": true, "int8": int8(-1), "uint8": uint8(200), "int16": int16(-300), "int32": int32(70_000),
			"int64": int64(1) << 40, "float32": float32(0.5), "float64": 0.25, "time": at, "text": "words",
			"bytes": []byte{0, 255}, "none": nil, "table": amqp.Table{"a": int32(1)}, "array": []any{int32(1), "two"},
			"decimal": amqp.Decimal{Scale: 2, Value: 314},
		},
		ContentType: "text/plain", ContentEncoding: "utf-8", DeliveryMode: amqp.Persistent, Priority: 3,
		CorrelationId: "correlation", ReplyTo: "somewhere", Expiration: "60000", MessageId: "message", Timestamp: at,
		Type: "kind", UserId: "guest", AppId: "application", Body: []byte("body"),
	}
	check(channel.Confirm(false))
	publish(channel, "", queue, sent)
	got, found, problem := channel.Get(queue, false)
	check(problem)
	that(found, "the message is there")
	equal(sent, amqp.Publishing{
		Headers: got.Headers, ContentType: got.ContentType, ContentEncoding: got.ContentEncoding,
		DeliveryMode: got.DeliveryMode, Priority: got.Priority, CorrelationId: got.CorrelationId, ReplyTo: got.ReplyTo,
		Expiration: got.Expiration, MessageId: got.MessageId, Timestamp: got.Timestamp, Type: got.Type,
		UserId: got.UserId, AppId: got.AppId, Body: got.Body,
	})
	check(got.Ack(false))
	_, found, problem = channel.Get(queue, false)
	check(problem)
	that(!found, "the message is settled")
	check(channel.Close())
}

func settlements(connection *amqp.Connection) {
	channel := must(connection.Channel())
	must(channel.QueueDeclare("go settled", true, false, false, false, nil))
	check(channel.Confirm(false))
	for _, body := range []string{"ack", "nack", "reject", "drop"} {
		publish(channel, "", "go settled", persistent(body))
	}
	deliveries := must(channel.Consume("go settled", "the one", false, false, false, false, nil))
	for _, expected := range []string{"ack", "nack", "reject", "drop"} {
		delivery := <-deliveries
		equal(expected, string(delivery.Body))
		that(!delivery.Redelivered, "the first deliveries are not redelivered")
		switch expected {
		case "ack":
			check(delivery.Ack(false))
		case "nack":
			check(delivery.Nack(false, true))
		case "reject":
			check(delivery.Reject(true))
		default:
			check(delivery.Nack(false, false))
		}
	}
	again := []string{}
	for len(again) < 2 {
		delivery := <-deliveries
		that(delivery.Redelivered, "the message is redelivered")
		again = append(again, string(delivery.Body))
		check(delivery.Ack(false))
	}
	sort.Strings(again)
	equal([]string{"nack", "reject"}, again)
	check(channel.Cancel("the one", false))
	equal(0, must(channel.QueueDelete("go settled", false, true, false)))
	check(channel.Close())
}

// An unroutable mandatory message is returned before it is confirmed.
func returns(connection *amqp.Connection) {
	channel := must(connection.Channel())
	returned := channel.NotifyReturn(make(chan amqp.Return, 1))
	check(channel.Confirm(false))
	nobody := amqp.Publishing{Body: []byte("nobody")}
	confirmation := must(channel.PublishWithDeferredConfirm("amq.direct", "nowhere", true, false, nobody))
	that(confirmation.Wait(), "an unroutable message is confirmed")
	equal(1, len(returned))
	message := <-returned
	equal(uint16(312), message.ReplyCode)
	equal("NO_ROUTE", message.ReplyText)
	equal("nobody", string(message.Body))
	check(channel.Close())
}

// No more messages than the prefetch count are unacked. After an ack the next one comes.
func prefetch(connection *amqp.Connection) {
	channel := must(connection.Channel())
	queue := must(channel.QueueDeclare("", false, false, true, false, nil)).Name
	check(channel.Confirm(false))
	for number := 0; number < 10; number++ {
		publish(channel, "", queue, amqp.Publishing{Body: []byte(strconv.Itoa(number))})
	}
	check(channel.Qos(3, 0, false))
	deliveries := must(channel.Consume(queue, "", false, false, false, false, nil))
	out := []amqp.Delivery{<-deliveries, <-deliveries, <-deliveries}
	for settled := 0; settled < 10; settled++ {
		// A request on the same channel: a further delivery would come before its reply.
		must(channel.QueueDeclarePassive(queue, false, false, true, false, nil))
		equal(0, len(deliveries))
		equal(strconv.Itoa(settled), string(out[settled].Body))
		check(out[settled].Ack(false))
		if len(out) < 10 {
			out = append(out, <-deliveries)
		}
	}
	check(channel.Close())
}

// An error closes the channel with its reply code, and the connection stays open.
func channelErrors(connection *amqp.Connection) {
	channel := must(connection.Channel())
	closed := channel.NotifyClose(make(chan *amqp.Error, 1))
	_, problem := channel.QueueDeclarePassive("go nowhere", false, false, false, false, nil)
	that(problem != nil, "the queue does not exist")
	reason := <-closed
	equal(404, reason.Code)
	equal("NOT_FOUND - no queue 'go nowhere' in vhost '/'", reason.Reason)
	that(!connection.IsClosed(), "the connection stays open")
}

// A consumer is notified when another client deletes its queue.
func cancelled(connection *amqp.Connection) {
	consuming := must(connection.Channel())
	must(consuming.QueueDeclare("go cancelled", false, false, false, false, nil))
	told := consuming.NotifyCancel(make(chan string, 1))
	deliveries := must(consuming.Consume("go cancelled", "the one", true, false, false, false, nil))
	deleting := must(connection.Channel())
	must(deleting.QueueDelete("go cancelled", false, false, false))
	equal("the one", <-told)
	_, more := <-deliveries
	that(!more, "no more deliveries come")
}

func persistent(body string) amqp.Publishing {
	return amqp.Publishing{DeliveryMode: amqp.Persistent, Body: []byte(body)}
}

// publish sends a message and returns when it is confirmed.
func publish(channel *amqp.Channel, exchange, key string, message amqp.Publishing) {
	background := context.Background()
	confirmation := must(channel.PublishWithDeferredConfirmWithContext(background, exchange, key, false, false, message))
	that(confirmation.Wait(), "the message is confirmed")
}
