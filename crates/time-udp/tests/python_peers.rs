//! Python's clients, as its books and tutorials write them, on every Python of this machine.

mod common;

use common::{all, all_services, serving_in_order};
use portyard_testkit::{Daemon, python, pythons};

#[test]
fn the_tutorials_clients_are_answered_on_every_python() {
    let daemon = all();
    let versions = pythons();
    assert!(!versions.is_empty());
    for python in versions {
        let said = python.run(TUTORIAL, &ports(&daemon)).success();
        assert_eq!(said.trim_end(), "good", "Python {:?}", python.version);
    }
}

#[test]
fn an_asyncio_client_is_answered() {
    let daemon = all();
    for python in pythons().iter().filter(|python| python.version >= (3, 7)) {
        let said = python.run(ASYNCIO, &ports(&daemon)).success();
        assert_eq!(said.trim_end(), "good", "Python {:?}", python.version);
    }
}

#[test]
fn the_text_is_pythons_own_in_every_zone() {
    for zone in [
        "UTC",
        "Asia/Kolkata",
        "America/New_York",
        "Pacific/Auckland",
        "EST5EDT,M3.2.0,M11.1.0",
    ] {
        let daemon = serving_in_order(&all_services("")).env("TZ", zone).start();
        let mut arguments = vec![zone];
        let ports = ports(&daemon);
        arguments.extend(ports);
        for python in pythons() {
            let said = python.run(ZONE, &arguments).success();
            assert_eq!(
                said.trim_end(),
                "good",
                "Python {:?} in {zone}",
                python.version
            );
        }
    }
}

/// Every answer carries the mark that keeps it from being answered again by one of us.
#[test]
fn every_answer_leaves_with_the_reply_mark() {
    let mut tables = all_services("");
    for (service, endpoint) in [("echo", "udp://[::1]:0"), ("fib", "udp://[::1]:0")] {
        tables += &common::named(
            &format!("{service}6"),
            &common::listener(service, endpoint, ""),
        );
    }
    tables += &common::named("dual", &common::listener("echo", "udp://[::]:0", ""));
    tables += "[listener.socket]\nv6only = false\n";
    let daemon = serving_in_order(&tables).start();
    let dual = daemon.address("dual").port();
    let mut questions: Vec<String> = Vec::new();
    for service in [
        "ctime",
        "daytime",
        "time",
        "timestamp",
        "echo",
        "sntp",
        "fib",
        "echo6",
        "fib6",
    ] {
        questions.push(daemon.address(service).to_string());
    }
    questions.extend([
        format!("127.0.0.1:{dual}"),
        format!("127.0.0.9:{dual}"),
        format!("[::1]:{dual}"),
    ]);
    let arguments: Vec<&str> = questions.iter().map(String::as_str).collect();
    let said = python(MARK, &arguments).success();
    for (question, class) in questions.iter().zip(said.split_whitespace()) {
        assert_eq!(class, "0x0c", "the answer from {question}");
    }
    assert_eq!(said.split_whitespace().count(), questions.len());
}

/// The ports in the order the scripts take them apart.
fn ports(daemon: &Daemon) -> Vec<&'static str> {
    ["ctime", "daytime", "time", "timestamp", "echo", "fib"]
        .map(|service| &*daemon.address(service).port().to_string().leak())
        .to_vec()
}

const TUTORIAL: &str = r"
import socket, struct, sys, time

ctime, daytime, seconds, timestamp, echo, fib = [('127.0.0.1', int(port)) for port in sys.argv[1:]]

def ask(data, address):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(30)
    s.sendto(data, address)
    answer, source = s.recvfrom(8192)
    assert source == address, source
    s.close()
    return answer

def near_now(text):
    asked = time.mktime(time.strptime(text))
    assert abs(time.time() - asked) < 60, text

near_now(ask(b'', ctime).decode('ascii'))
near_now(ask(b'hi', ctime).decode('ascii'))
line = ask(b'', daytime).decode('ascii')
assert line.endswith('\r\n'), line
near_now(line.strip())
count, = struct.unpack('!I', ask(b'', seconds))
assert abs(count - 2208988800 - time.time()) < 60, count
stamped = ask(b'hi', timestamp).decode('ascii')
assert stamped.startswith('[') and stamped.endswith('] hi'), stamped
near_now(stamped[1:25])
assert ask(b'hello', echo) == b'hello'
assert ask(b'', echo) == b''
assert ask(b'10', fib) == b'55'
assert ask(str(50).encode('ascii'), fib) == b'12586269025'

# A connected socket, several questions on one.
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(30)
s.connect(echo)
for n in range(100):
    s.send(b'ping %d' % n if sys.version_info >= (3, 5) else b'ping ' + str(n).encode())
    assert s.recv(8192) == ('ping %d' % n).encode('ascii')

# The book's client pads nothing, and reads less than what comes: the rest is cut off.
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(30)
s.sendto(b'x' * 2000, echo)
assert s.recvfrom(1024)[0] == b'x' * 1024

# As a file. Python 2 reads on until it has all of the 8192 bytes, which datagrams never give.
if sys.version_info >= (3,):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.connect(timestamp)
    f = s.makefile('rwb', 0)
    f.write(b'through a file')
    assert f.read(8192).endswith(b'] through a file')
print('good')
";

const ASYNCIO: &str = r"
import asyncio, sys, time

ctime, echo = int(sys.argv[1]), int(sys.argv[5])

class Client(asyncio.DatagramProtocol):
    def __init__(self, message, done):
        self.message, self.done = message, done
    def connection_made(self, transport):
        transport.sendto(self.message)
    def datagram_received(self, data, address):
        self.done.set_result(data)
    def error_received(self, error):
        self.done.set_exception(error)

async def ask(message, port):
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    transport, _ = await loop.create_datagram_endpoint(
        lambda: Client(message, done), remote_addr=('127.0.0.1', port))
    try:
        return await asyncio.wait_for(done, 30)
    finally:
        transport.close()

async def main():
    time.strptime((await ask(b'?', ctime)).decode())
    answers = await asyncio.gather(*(ask(b'ping %d' % n, echo) for n in range(50)))
    assert answers == [b'ping %d' % n for n in range(50)], answers
    print('good')

asyncio.run(main())
";

const ZONE: &str = r"
import os, socket, sys, time

os.environ['TZ'] = sys.argv[1]
time.tzset()
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(30)
for _ in range(3):
    before = int(time.time())
    s.sendto(b'', ('127.0.0.1', int(sys.argv[2])))
    text = s.recvfrom(8192)[0].decode('ascii')
    after = int(time.time())
    ours = [time.ctime(second) for second in range(before, after + 1)]
    assert text in ours, (text, ours)
print('good')
";

const MARK: &str = r"
import socket, sys

IPV6_RECVTCLASS, IPV6_TCLASS = 66, 67
for question in sys.argv[1:]:
    host, port = question.rsplit(':', 1)
    host = host.strip('[]')
    v6 = ':' in host
    s = socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(30)
    if v6:
        s.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVTCLASS, 1)
    else:
        s.setsockopt(socket.IPPROTO_IP, 13, 1)   # IP_RECVTOS
    s.connect((host, int(port)))
    # sntp answers the second one, all others the first.
    s.send(b'10')
    s.send(b'\x23' + bytes(47))
    data, control, _, _ = s.recvmsg(8192, 128)
    classes = [data[0] for level, kind, data in control
               if (level, kind) in ((socket.IPPROTO_IP, socket.IP_TOS),
                                    (socket.IPPROTO_IPV6, IPV6_TCLASS))]
    print('0x%02x' % classes[0])
";
