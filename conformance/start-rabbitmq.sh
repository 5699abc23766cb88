# Starts RabbitMQ 3.10 (Debian's package rabbitmq-server) for a script that sources this file and has set PLUGINS, and perhaps
# CONFIGURATION. RabbitMQ has its own temporary folder, listens on 127.0.0.1 only, and is stopped when the script ends. The script must
# run as root or as the user rabbitmq. If RabbitMQ cannot run here, the script ends with 77.
#
# Afterwards $api_port is the port of the management API, $RABBITMQ_NODE_PORT that of AMQP, and the working folder is temporary.
set -euo pipefail

BIN=/usr/lib/rabbitmq/bin
skip() { echo "$1"; exit 77; }
ls -d /usr/lib/rabbitmq/lib/rabbitmq_server-3.10.* > /dev/null 2>&1 || skip "RabbitMQ 3.10 is not installed"
[ "$(id -u)" = 0 ] || [ "$(id -un)" = rabbitmq ] || skip "only root and the user rabbitmq can start RabbitMQ"
command -v curl python3 > /dev/null || skip "this needs curl and python3"
export HOME
HOME=$(mktemp -d)
cd "$HOME"

port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
api_port=$(port)
ERL_EPMD_PORT=$(port)
RABBITMQ_NODE_PORT=$(port)
RABBITMQ_DIST_PORT=$(port)
export ERL_EPMD_PORT RABBITMQ_NODE_PORT RABBITMQ_DIST_PORT ERL_EPMD_ADDRESS=127.0.0.1 RABBITMQ_NODE_IP_ADDRESS=127.0.0.1
export RABBITMQ_NODENAME="ferrymq-export-$$@localhost" RABBITMQ_MNESIA_BASE="$HOME/data" RABBITMQ_LOG_BASE="$HOME/log"
export RABBITMQ_CONFIG_FILE="$HOME/rabbitmq.conf" RABBITMQ_CONF_ENV_FILE="$HOME/none" RABBITMQ_PID_FILE="$HOME/pid"
export RABBITMQ_ENABLED_PLUGINS_FILE="$HOME/plugins"
export RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-kernel inet_dist_use_interface {127,0,0,1}"
printf 'management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = %s\n%s\n' "$api_port" "${CONFIGURATION:-}" > rabbitmq.conf
echo "[$PLUGINS]." > plugins

# RabbitMQ's commands print what they do. Only their errors are needed here.
ctl() { "$BIN/rabbitmqctl" --quiet "$@" > /dev/null; }

"$BIN/rabbitmq-server" > output 2>&1 < /dev/null &
stop() {
    # RabbitMQ removes the file when it has been told to stop before, such as by a Ctrl-C.
    [ ! -e "$HOME/pid" ] || kill "$(cat "$HOME/pid")" || true
    wait %1 || true
    # epmd stays until RabbitMQ has left it.
    for _ in $(seq 100); do
        "$(ls -d /usr/lib/erlang/erts-*/bin/epmd | head -1)" -port "$ERL_EPMD_PORT" -kill | grep -q Killed && break
        sleep 0.1
    done
    rm -rf "$HOME"
}
trap stop EXIT
trap 'exit 1' INT TERM
ctl wait --timeout 120 "$HOME/pid"
