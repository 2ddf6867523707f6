//! The clients of other languages, as their libraries are used: Ruby, PHP and Node.

#[path = "common/doors.rs"]
mod doors;

use std::process::Command;

use doors::start;
use portyard_testkit::{Daemon, finish, node_modules, peer};

fn port(daemon: &Daemon, service: &str) -> String {
    daemon.address(service).port().to_string()
}

/// `xmlrpc/client`, with nil switched on as `set` and `delete` return it.
const RUBY: &str = r#"
require 'xmlrpc/client'
XMLRPC::Config.send(:remove_const, :ENABLE_NIL_PARSER)
XMLRPC::Config.send(:const_set, :ENABLE_NIL_PARSER, true)
server = XMLRPC::Client.new3(host: '127.0.0.1', port: ARGV[0].to_i, path: '/RPC2', timeout: 20)
blob = XMLRPC::Base64.new("\x00\xff")
raise 'set' unless server.call('set', 'ruby', { 'list' => [1, 'zwei', 2.5], 'yes' => true, 'blob' => blob }).nil?
back = server.call('get', 'ruby')
raise back.inspect unless back['list'] == [1, 'zwei', 2.5] && back['yes'] == true && back['blob'] == "\x00\xff".b
raise 'keys' unless server.call('keys') == ['ruby']
begin
  server.call('get', 'nothing')
  raise 'no fault'
rescue XMLRPC::FaultException => fault
  raise fault.faultString unless fault.faultCode == 1 && fault.faultString.include?("KeyError")
end
results = server.multicall(['exists', 'ruby'], ['delete', 'ruby'], ['exists', 'ruby'])
raise results.inspect unless results == [true, nil, false]
print 'done'
"#;

#[test]
fn ruby_is_served() {
    let daemon = start(&["xml-rpc"], "", "");
    let mut ruby = Command::new(peer("ruby"));
    ruby.args(["-W0", "-e", RUBY, &port(&daemon, "xml-rpc")]);
    assert_eq!(finish(&mut ruby, b"").success(), "done");
}

/// The functions of the extension `xmlrpc`, over PHP's own HTTP.
const PHP: &str = r#"
function call($method, ...$arguments) {
    global $argv;
    $body = xmlrpc_encode_request($method, $arguments, ['encoding' => 'utf-8', 'escaping' => 'markup']);
    $context = stream_context_create(['http' => ['method' => 'POST', 'header' => 'Content-Type: text/xml',
        'content' => $body, 'timeout' => 20]]);
    return xmlrpc_decode(file_get_contents("http://127.0.0.1:$argv[1]/RPC2", false, $context), 'utf-8');
}
function want($holds, $what) { if (!$holds) { fwrite(STDERR, $what . "\n"); exit(1); } }
$blob = "\x00\xff"; xmlrpc_set_type($blob, 'base64');
call('set', 'php', ['list' => [1, 'zwei ü', 2.5], 'yes' => true, 'blob' => $blob]);
$back = call('get', 'php');
want($back['list'] === [1, 'zwei ü', 2.5] && $back['yes'] === true, var_export($back, true));
want($back['blob']->scalar === "\x00\xff", 'blob');
want(call('keys') === ['php'], 'keys');
$fault = call('get', 'nothing');
want(xmlrpc_is_fault($fault) && $fault['faultCode'] === 1 && str_contains($fault['faultString'], 'KeyError'), 'fault');
call('delete', 'php');
want(call('exists', 'php') === false, 'exists');
echo 'done';
"#;

#[test]
fn php_is_served() {
    let daemon = start(&["xml-rpc"], "", "");
    let mut php = Command::new(peer("php"));
    php.args(["-r", PHP, "--", &port(&daemon, "xml-rpc")]);
    assert_eq!(finish(&mut php, b"").success(), "done");
}

/// npm's `xmlrpc` over HTTP, and its `jayson` over HTTP and over a bare stream.
const NODE: &str = r"
const assert = require('node:assert');
const { promisify } = require('node:util');
const [xmlPort, jsonPort] = process.argv.slice(1).map(Number);
const xmlrpc = require('xmlrpc');
const jayson = require('jayson/promise');
async function main() {
  const client = xmlrpc.createClient({ host: '127.0.0.1', port: xmlPort, path: '/RPC2' });
  const call = promisify(client.methodCall.bind(client));
  await call('set', ['node', { list: [1, 'zwei', 2.5], yes: true, blob: Buffer.from([0, 255]) }]);
  const back = await call('get', ['node']);
  assert.deepStrictEqual(back, { list: [1, 'zwei', 2.5], yes: true, blob: Buffer.from([0, 255]) });
  assert.deepStrictEqual(await call('keys', []), ['node']);
  await assert.rejects(call('get', ['nothing']), (fault) => fault.faultCode === 1 && /KeyError/.test(fault.faultString));
  for (const kind of ['http', 'tcp']) {
    const json = jayson.Client[kind]({ host: '127.0.0.1', port: jsonPort });
    assert.strictEqual((await json.request('set', ['n', 41])).result, null);
    assert.strictEqual((await json.request('incr', { name: 'n' })).result, 42);
    assert.strictEqual((await json.request('get', ['nothing'])).error.code, -32001);
    const batch = await json.request([json.request('get', ['n'], undefined, false), json.request('exists', ['x'], undefined, false)]);
    assert.deepStrictEqual(batch.map((reply) => reply.result), [42, false]);
  }
}
main().then(() => process.stdout.write('done'), (error) => { console.error(error); process.exit(1); });
";

#[test]
fn the_clients_of_npm_are_served() {
    let daemon = start(&["xml-rpc", "json-rpc"], "", "");
    let mut node = Command::new(peer("node"));
    node.env("NODE_PATH", node_modules());
    node.args([
        "-e",
        NODE,
        &port(&daemon, "xml-rpc"),
        &port(&daemon, "json-rpc"),
    ]);
    assert_eq!(finish(&mut node, b"").success(), "done");
}
