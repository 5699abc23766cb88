import com.rabbitmq.client.Channel;
import com.rabbitmq.client.Connection;
import com.rabbitmq.client.GetResponse;
import com.rabbitmq.client.MessageProperties;

/** RabbitMQ's Java client: the publishes and acks of a transaction take effect when it is committed, and not before. */
final class Transactions {
    private static final String QUEUE = "java transactions";

    private Transactions() {}

    public static void main(String[] arguments) throws Exception {
        try (Connection connection = Server.connect()) {
            Channel watching = connection.createChannel();
            watching.queueDeclare(QUEUE, true, false, false, null);
            Channel channel = connection.createChannel();
            channel.txSelect();

            publish(channel, "rolled back");
            channel.txRollback();
            Expect.equal(0L, watching.messageCount(QUEUE));

            publish(channel, "first");
            publish(channel, "second");
            Expect.equal(0L, watching.messageCount(QUEUE));
            channel.txCommit();
            Expect.equal(2L, watching.messageCount(QUEUE));

            // After a rollback the ack has no effect: the message can be acked again, and it is removed only then.
            GetResponse first = channel.basicGet(QUEUE, false);
            channel.basicAck(first.getEnvelope().getDeliveryTag(), false);
            channel.txRollback();
            channel.basicAck(first.getEnvelope().getDeliveryTag(), false);
            publish(channel, "third");
            channel.txCommit();
            channel.close();

            Expect.equal("second", take(watching));
            Expect.equal("third", take(watching));
            Expect.equal(null, watching.basicGet(QUEUE, true));
            watching.queueDelete(QUEUE);
        }
    }

    private static void publish(Channel channel, String body) throws Exception {
        channel.basicPublish("", QUEUE, MessageProperties.PERSISTENT_TEXT_PLAIN, body.getBytes());
    }

    private static String take(Channel channel) throws Exception {
        return new String(channel.basicGet(QUEUE, true).getBody());
    }
}
