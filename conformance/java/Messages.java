import com.rabbitmq.client.AMQP;
import com.rabbitmq.client.AMQP.BasicProperties;
import com.rabbitmq.client.Channel;
import com.rabbitmq.client.Connection;
import com.rabbitmq.client.Delivery;
import com.rabbitmq.client.GetResponse;
import com.rabbitmq.client.LongString;
import com.rabbitmq.client.MessageProperties;
import com.rabbitmq.client.ShutdownSignalException;
import java.io.IOException;
import java.util.ArrayList;
import java.util.Date;
import java.util.List;
import java.util.Map;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;

/** RabbitMQ's Java client: all properties, confirms, returns, all ways to settle, and cancel notifications. */
final class Messages {
    private Messages() {}

    public static void main(String[] arguments) throws Exception {
        try (Connection connection = Server.connect()) {
            properties(connection);
            settlements(connection);
            returns(connection);
            prefetch(connection);
            channelErrors(connection);
            cancelled(connection);
        }
    }

    private static void properties(Connection connection) throws Exception {
        Channel channel = connection.createChannel();
        String queue = channel.queueDeclare().getQueue();
        Expect.that(queue.startsWith("amq.gen-"), queue);
        BasicProperties sent = new BasicProperties.Builder()
            .contentType("text/plain")
            .contentEncoding("utf-8")
            .headers(Map.of("int", 1, "long", 1L << 40, "double", 0.5, "yes", true, "list", List.of(1, 2), "inner",
                Map.of("a", (byte) -1), "short", (short) 128, "date", new Date(1_700_000_000_000L)))
            .deliveryMode(2)
            .priority(3)
            .correlationId("correlation")
            .replyTo("somewhere")
            .expiration("60000")
            .messageId("message")
            .timestamp(new Date(1_700_000_000_000L))
            .type("kind")
            .userId("guest")
            .appId("application")
            .clusterId("cluster")
            .build();
        channel.confirmSelect();
        channel.basicPublish("", queue, sent, "body".getBytes());
        channel.waitForConfirmsOrDie();
        GetResponse got = channel.basicGet(queue, false);
        Expect.equal("body", new String(got.getBody()));
        Expect.equal(sent, got.getProps());
        Expect.equal(0, got.getMessageCount());
        channel.basicAck(got.getEnvelope().getDeliveryTag(), false);
        Expect.equal(null, channel.basicGet(queue, false));
        channel.close();
    }

    private static void settlements(Connection connection) throws Exception {
        Channel channel = connection.createChannel();
        channel.queueDeclare("java settled", true, false, false, null);
        channel.confirmSelect();
        for (String body : List.of("ack", "nack", "reject", "drop")) {
            channel.basicPublish("", "java settled", MessageProperties.PERSISTENT_TEXT_PLAIN, body.getBytes());
        }
        channel.waitForConfirmsOrDie();
        Deliveries deliveries = new Deliveries();
        String tag = channel.basicConsume("java settled", false, deliveries, deliveries);
        List<Delivery> first = deliveries.next(4);
        Expect.equal(List.of("ack", "nack", "reject", "drop"), Deliveries.bodies(first));
        Expect.that(first.stream().noneMatch(delivery -> delivery.getEnvelope().isRedeliver()), "the first deliveries are not redelivered");
        channel.basicAck(first.get(0).getEnvelope().getDeliveryTag(), false);
        channel.basicNack(first.get(1).getEnvelope().getDeliveryTag(), false, true);
        channel.basicReject(first.get(2).getEnvelope().getDeliveryTag(), true);
        channel.basicNack(first.get(3).getEnvelope().getDeliveryTag(), false, false);
        List<Delivery> again = deliveries.next(2);
        Expect.equal(List.of("nack", "reject"), Deliveries.bodies(again).stream().sorted().toList());
        Expect.that(again.stream().allMatch(delivery -> delivery.getEnvelope().isRedeliver()), "these are redelivered");
        channel.basicAck(0, true);
        channel.basicCancel(tag);
        Expect.equal(0, channel.queueDelete("java settled").getMessageCount());
        channel.close();
    }

    /** An unroutable mandatory message is returned before it is confirmed. */
    private static void returns(Connection connection) throws Exception {
        Channel channel = connection.createChannel();
        BlockingQueue<String> order = new LinkedBlockingQueue<>();
        channel.addReturnListener(returned ->
            order.add(returned.getReplyCode() + " " + returned.getReplyText() + " " + new String(returned.getBody())));
        channel.addConfirmListener((tag, multiple) -> order.add("confirm " + tag), (tag, multiple) -> order.add("nack"));
        channel.confirmSelect();
        channel.basicPublish("amq.direct", "nowhere", true, null, "nobody".getBytes());
        Expect.equal("312 NO_ROUTE nobody", order.take());
        Expect.equal("confirm 1", order.take());
        channel.close();
    }

    /** No more messages than the prefetch count are unacked. After an ack the next one comes. */
    private static void prefetch(Connection connection) throws Exception {
        Channel channel = connection.createChannel();
        String queue = channel.queueDeclare().getQueue();
        for (int number = 0; number < 10; number++) {
            channel.basicPublish("", queue, null, String.valueOf(number).getBytes());
        }
        channel.basicQos(3);
        Deliveries deliveries = new Deliveries();
        channel.basicConsume(queue, false, deliveries, deliveries);
        List<Delivery> out = new ArrayList<>(deliveries.next(3));
        for (int settled = 0; settled < 10; settled++) {
            // A request on the same channel: a further delivery would come before its reply.
            channel.queueDeclarePassive(queue);
            Expect.equal(0, deliveries.waiting());
            channel.basicAck(out.get(settled).getEnvelope().getDeliveryTag(), false);
            if (out.size() < 10) {
                out.add(deliveries.next());
            }
        }
        Expect.equal(List.of("0", "1", "2", "3", "4", "5", "6", "7", "8", "9"), Deliveries.bodies(out));
        channel.close();
    }

    /** An error closes the channel with its reply code, and the connection stays open. */
    private static void channelErrors(Connection connection) throws Exception {
        Channel channel = connection.createChannel();
        IOException problem = Expect.failure(IOException.class, () -> channel.queueDeclarePassive("java nowhere"));
        ShutdownSignalException signal = (ShutdownSignalException) problem.getCause();
        AMQP.Channel.Close reason = (AMQP.Channel.Close) signal.getReason();
        Expect.equal(404, reason.getReplyCode());
        Expect.equal("NOT_FOUND - no queue 'java nowhere' in vhost '/'", reason.getReplyText());
        Expect.that(connection.isOpen(), "the connection stays open");
        LongString product = (LongString) connection.getServerProperties().get("product");
        Expect.equal("RabbitMQ", product.toString());
    }

    /** A consumer is notified when another client deletes its queue. */
    private static void cancelled(Connection connection) throws Exception {
        Channel consuming = connection.createChannel();
        consuming.queueDeclare("java cancelled", false, false, false, null);
        Deliveries deliveries = new Deliveries();
        String tag = consuming.basicConsume("java cancelled", true, deliveries, deliveries);
        Channel deleting = connection.createChannel();
        deleting.queueDelete("java cancelled");
        Expect.equal(tag, deliveries.cancelled());
    }
}
