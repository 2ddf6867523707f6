//! Clients of Ruby, PHP and JavaScript, as their users write them. Those of Perl and C are in
//! `xml_rpc.rs`.

#[path = "common/doors.rs"]
mod doors;

use std::process::Command;

use doors::{accepted, bad_inputs, start};
use portyard_testkit::{Daemon, finish, node, peer};

/// `XMLRPC::Client` of the gem that was Ruby's own until 2.3. It reads nil where it is told to.
const RUBY: &str = r#"
require 'xmlrpc/client'
XMLRPC::Config.const_set(:ENABLE_NIL_PARSER, true)
XMLRPC::Config.const_set(:ENABLE_NIL_CREATE, true)
s = XMLRPC::Client.new2(ARGV[0])
def want(holds, what) = holds || abort("not so: #{what}")
value = {'list' => [1, 'zwei <&> grüß', 2.5, nil, true], 'blob' => XMLRPC::Base64.new("\0\xff".b)}
want s.call('set', 'ruby', value).nil?, 'nil'
back = s.call('get', 'ruby')
want back['list'] == value['list'], back
want back['blob'].b == "\0\xff".b, back
s.call('set', 'when', XMLRPC::DateTime.new(2026, 11, 2, 11, 41, 40))
want s.call('get', 'when').to_a == [2026, 11, 2, 11, 41, 40], 'date-time'
want s.call('keys') == ['ruby', 'when'], 'keys'
kv = s.proxy
want kv.exists('ruby') == true && kv.exists('nothing') == false, 'exists'
begin
  kv.get('nothing')
  abort 'no fault'
rescue XMLRPC::FaultException => fault
  want fault.faultCode == 1 && fault.faultString == "<class 'KeyError'>:'nothing'", fault.faultString
end
ok, wrong = s.call2('delete', 'nothing')
want !ok && wrong.is_a?(XMLRPC::FaultException), 'call2'
results = s.multicall(['set', 'a', 1], ['get', 'a'], ['get', 'nothing'])
want results[1] == 1 && results[2].is_a?(XMLRPC::FaultException), results
page = s.call('watch', 'a', nil, 0)
want page['events'] == [] && page['next'] == 4, page
page = s.call('watch', 'a', 3)
want page['events'].map { |e| e['value'] } == [1], page
want s.call('system.listMethods').include?('watch'), 'methods'
print 'done'
"#;

#[test]
fn ruby_is_served() {
    let daemon = start(&["xml-rpc"], "", "");
    let mut ruby = Command::new(peer("ruby"));
    let done = finish(ruby.args(["-e", RUBY, &url(&daemon, "xml-rpc")]), b"");
    assert_eq!(done.success(), "done");
}

/// PHP's extension makes and reads bodies; its streams carry them.
const PHP: &str = r#"
function call($method, ...$params) {
    global $argv;
    $body = xmlrpc_encode_request($method, $params, ['encoding' => 'utf-8', 'escaping' => 'markup']);
    $http = ['method' => 'POST', 'header' => 'Content-Type: text/xml', 'content' => $body];
    $said = file_get_contents($argv[1], false, stream_context_create(['http' => $http]));
    return xmlrpc_decode($said, 'utf-8');
}
function want($holds, $what) { if (!$holds) { fwrite(STDERR, $what); exit(1); } }
$blob = "\0\xff"; xmlrpc_set_type($blob, 'base64');
$when = '20261102T11:41:40'; xmlrpc_set_type($when, 'datetime');
want(call('set', 'php', ['list' => [1, 'zwei <&> grüß', 2.5, true], 'blob' => $blob, 'when' => $when]) === null, 'nil');
$back = call('get', 'php');
want($back['list'] === [1, 'zwei <&> grüß', 2.5, true], json_encode($back['list']));
want($back['blob']->scalar === "\0\xff", 'blob');
want($back['when']->timestamp === strtotime('2026-11-02 11:41:40'), 'when');
want(call('keys') === ['php'], 'keys');
want(call('exists', 'php') === true, 'exists');
$fault = call('get', 'nothing');
want(xmlrpc_is_fault($fault), 'no fault');
want($fault['faultCode'] === 1 && $fault['faultString'] === "<class 'KeyError'>:'nothing'", $fault['faultString']);
want(call('incr', 'n') === 1 && call('delete', 'n') === null, 'n');
$page = call('watch', 'n', 2);
want(array_column($page['events'], 'type') === ['set', 'delete'], json_encode($page));
want($page['next'] === 4, 'next');
print 'done';
"#;

#[test]
fn php_is_served() {
    let daemon = start(&["xml-rpc"], "", "");
    let mut php = Command::new(peer("php"));
    let url = url(&daemon, "xml-rpc");
    let done = finish(php.args(["-d", "date.timezone=UTC", "-r", PHP, &url]), b"");
    assert_eq!(done.success(), "done");
}

/// The package `xmlrpc`, over connections that its agent keeps.
const NODE_XML: &str = r"
const assert = require('assert'), http = require('http'), xmlrpc = require('xmlrpc');
const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
const client = xmlrpc.createClient({ url: process.argv[1], agent });
const call = (method, ...params) => new Promise((done, failed) =>
    client.methodCall(method, params, (error, value) => error ? failed(error) : done(value)));
(async () => {
    const value = { list: [1, 'zwei <&> gr\u00fc\u00df', 2.5, null, true], blob: Buffer.from([0, 255]) };
    assert.strictEqual(await call('set', 'node', value), null);
    assert.deepStrictEqual(await call('get', 'node'), value);
    const when = new Date(2026, 10, 2, 11, 41, 40);
    await call('set', 'when', when);
    assert.deepStrictEqual(await call('get', 'when'), when);
    assert.deepStrictEqual(await call('keys'), ['node', 'when']);
    await assert.rejects(call('get', 'nothing'), error =>
        error.faultCode === 1 && error.faultString === `<class 'KeyError'>:'nothing'`);
    const many = await Promise.all([...Array(20).keys()].map(n => call('set', `k${n}`, n)));
    assert.ok(many.every(result => result === null));
    const page = await call('watch', 'k', 3, 20, 1000);
    assert.deepStrictEqual(page.events.map(event => event.value).sort((a, b) => a - b), [...Array(20).keys()]);
    assert.strictEqual(page.next, 23);
    agent.destroy();
    process.stdout.write('done');
})();
";

#[test]
fn nodes_xml_rpc_is_served_over_one_connection() {
    let daemon = start(&["xml-rpc"], "", "");
    let done = node(NODE_XML, &[&url(&daemon, "xml-rpc")]);
    assert_eq!(done.success(), "done");
    assert_eq!(accepted(&daemon, "xml-rpc"), 1);
}

/// `jayson` over HTTP and over a stream: calls, a batch, a notification, an error.
const JAYSON: &str = r"
const assert = require('assert'), jayson = require('jayson/promise');
const port = Number(process.argv[1]);
(async () => {
    for (const [name, client] of Object.entries({
        http: jayson.Client.http({ host: '127.0.0.1', port }),
        tcp: jayson.Client.tcp({ host: '127.0.0.1', port }),
    })) {
        const value = { list: [1, 'zwei gr\u00fc\u00df \u{1f980}', 2.5, null, true] };
        assert.strictEqual((await client.request('set', [name, value])).result, null);
        assert.deepStrictEqual((await client.request('get', { name })).result, value);
        const { error } = await client.request('get', ['nothing']);
        assert.deepStrictEqual(error, { code: -32001, message: `'nothing'`, data: { type: 'KeyError' } });
        const batch = [
            client.request('incr', [name + ' n'], undefined, false),
            client.request('incr', [name + ' n', 41], null, false),
            client.request('incr', [name + ' n'], undefined, false),
        ];
        const replies = await client.request(batch);
        assert.deepStrictEqual(replies.map(reply => reply.result), [1, 43]);
        const page = (await client.request('watch', { prefix: name + ' n', from_revision: 1, limit: 2 })).result;
        assert.deepStrictEqual(page.events.map(event => event.value), [1, 42]);
    }
    process.stdout.write('done');
})().catch(error => { console.error(error); process.exit(1); });
";

#[test]
fn jayson_is_served_over_http_and_over_a_stream() {
    let daemon = start(&["json-rpc"], "", "");
    let port = daemon.address("json-rpc").port().to_string();
    let done = node(JAYSON, &[&port]);
    assert_eq!(done.success(), "done");
    assert_eq!(bad_inputs(&daemon, "json-rpc"), 0);
}

/// The library of language servers and their editors, which knows notifications of both ends.
const VSCODE: &str = r"
const assert = require('assert'), net = require('net'), rpc = require('vscode-jsonrpc/node');
const socket = net.connect(Number(process.argv[1]), '127.0.0.1');
const connection = rpc.createMessageConnection(new rpc.SocketMessageReader(socket), new rpc.SocketMessageWriter(socket));
let told;
const heard = new Promise(done => { told = done; });
const events = [];
connection.onNotification('watch.events', said => {
    assert.strictEqual(said.subscription, 1);
    events.push(...said.events);
    if (events.length === 3) told(said.next);
});
connection.listen();
(async () => {
    const byName = await connection.sendRequest('watch.subscribe', { prefix: 'a' });
    assert.deepStrictEqual(byName, { subscription: 1, next: 1 });
    await connection.sendNotification('set', 'a', 1);
    await connection.sendRequest('set', 'b', 2);
    const many = [connection.sendRequest('set', 'a', [null, 'gr\u00fc\u00df']), connection.sendRequest('delete', 'a')];
    assert.deepStrictEqual(await Promise.all(many), [null, null]);
    assert.strictEqual(await heard, 5);
    assert.deepStrictEqual(events.map(({ type, revision }) => [type, revision]), [['set', 1], ['set', 3], ['delete', 4]]);
    await assert.rejects(connection.sendRequest('get', 'nothing'), error =>
        error.code === -32001 && error.data.type === 'KeyError');
    assert.strictEqual(await connection.sendRequest('watch.unsubscribe', 1), true);
    connection.dispose();
    socket.end();
    process.stdout.write('done');
})().catch(error => { console.error(error); process.exit(1); });
";

#[test]
fn the_library_of_editors_calls_and_is_told() {
    let daemon = start(&["json-rpc"], "", "");
    let port = daemon.address("json-rpc").port().to_string();
    let done = node(VSCODE, &[&port]);
    assert_eq!(done.success(), "done");
    assert_eq!(bad_inputs(&daemon, "json-rpc"), 0);
}

#[track_caller]
fn url(daemon: &Daemon, service: &str) -> String {
    format!("http://127.0.0.1:{}/RPC2", daemon.address(service).port())
}
