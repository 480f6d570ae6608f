# Catches: an administrator's word that is not carried out, or by the wrong
# worker, or that a stranger or a web page can give; a request that is ended
# and not written down; a block or a grant that a restart forgets.

use strict;
use warnings;
use lib 't/lib';
use Digest::SHA 'sha256_hex';
use LLM;
use Test::More;
use Time::HiRes 'time';

my $dir = File::Temp::tempdir('/tmp/ngx_llm_t.XXXXXX', CLEANUP => 1);
chmod 0777, $dir;
open my $f, '>', "$dir/keys" or die $!;
print $f sha256_hex("$_ key"), " id-$_ $_\n" for qw(acme other small);
close $f;

my $t = LLM->new(engine => [qw(--device null --model_name m --step_min 20ms --context 4096)],
    workers => 2, conf => <<"CONF", server => <<'SERVER');
    llm_key_file $dir/keys;
    llm_zone llm:1m state=$dir/state;
    llm_usage_log $dir/usage.log;
    llm_request_id \$http_x_id;
    llm_tenant small { budget 100 per=day; budget 120 per=month; }
CONF
        location /admin/ { llm_admin; }
        location /far/ { llm_admin; set_real_ip_from 127.0.0.1; real_ip_header X-Real-IP; }
SERVER

my %body = (model => 'm', prompt => 'x', max_tokens => 5);
sub ask {
    my ($who, %more) = @_;
    return $t->post('/v1/completions', { %body, %more }, Authorization => "Bearer $who key");
}
sub stream {
    my ($who, $id, %more) = @_;
    my $s = $t->connect;
    print $s $t->request_text('POST', '/v1/completions', { %body, max_tokens => 3000,
        stream => JSON::PP::true(), %more }, Authorization => "Bearer $who key", 'X-Id' => $id);
    my $stream = LLM::Stream->new($s);
    $stream->next_event(10) if !exists $more{stream};
    return $stream;
}
sub admin {
    my ($method, $path, %h) = @_;
    my $r = $t->request($method, "/admin/$path", undef, %h);
    $r->{json} = eval { LLM->decode($r->{body}) } if $r->{status} < 300;
    return $r;
}
sub requests { my %r = map { $_->{id} => $_ } @{ admin('GET', 'requests')->{json}{requests} }; \%r }
sub tenant { (grep { $_->{name} eq $_[0] } @{ admin('GET', 'tenants')->{json}{tenants} })[0] }

# --- requests ------------------------------------------------------------------

is_deeply(requests(), {}, 'nothing runs');
my %s = map { ("r$_" => stream($_ % 2 ? 'acme' : 'other', "r$_")) } 1 .. 8;
my $r = requests();
is(join(' ', sort keys %$r), join(' ', map { "r$_" } 1 .. 8), 'eight run');
is("$r->{r3}{tenant} $r->{r3}{key} $r->{r3}{model}", 'acme id-acme m', 'whose, and what');
ok((grep { $_ == $r->{r3}{worker} } $t->pids), 'its worker');
cmp_ok($r->{r3}{prompt_tokens}, '>', 0, 'its prompt');
cmp_ok($r->{r3}{completion_tokens}, '>', 0, 'its tokens');

for my $id (qw(r3 r4)) { # of either worker, whoever takes the order
    is(admin('DELETE', "requests/$id")->{status}, 202, "$id is to end");
    my ($last, $e);
    $last = $e while defined($e = $s{$id}->next_event(5));
    like($last, qr/"code":"request_stopped"/, 'its client is told why');
}
ok($t->wait_for(sub { join(' ', sort keys %{ requests() }) eq 'r1 r2 r5 r6 r7 r8' }, 5),
    'the others go on');
ok($s{r5}->goes_on, 'indeed');
is(admin('DELETE', 'requests/r3')->{status}, 404, 'it is gone');
is(admin('DELETE', 'requests/r')->{status}, 404, 'half an id is none');
is(admin('DELETE', 'requests/' . 'x' x 500)->{status}, 404, 'nor is a long one');
my $whole = stream('acme', 'whole', stream => JSON::PP::false());
$t->wait_for(sub { my $w = requests()->{whole}; $w && $w->{completion_tokens} }, 5);
admin('DELETE', 'requests/whole');
my $got = $whole->whole;
is("$got->{status} " . LLM->decode($got->{body})->{error}{code}, '503 request_stopped',
    'an answer in one piece, too');
$_->close for values %s;
ok($t->wait_for(sub { !%{ requests() } }, 10), 'and all end');
ok($t->pool_is_full(3), 'in the engine as well');
my %lines = map { my $l = LLM->decode($_); ($l->{id} => $l) }
    split /\n/, LLM::_slurp("$dir/usage.log");
is("$lines{r3}{error} $lines{r3}{finish}", 'request_stopped error', 'written down');
is($lines{whole}{status}, 503, 'with its status');

# --- tenants -------------------------------------------------------------------

my $running = stream('acme', 'running');
is(admin('PUT', 'tenants/acme/block')->{status}, 200, 'block');
my $no = ask('acme');
is("$no->{status} " . LLM->decode($no->{body})->{error}{code}, '403 tenant_blocked', 'blocked');
is(ask('other')->{status}, 200, 'others are not');
ok($running->goes_on, 'what runs goes on');
$running->close;
ok(tenant('acme')->{blocked}, 'it is listed');
ok(!tenant('other')->{blocked}, 'and only it');
is(admin('PUT', 'tenants/never-seen/block')->{status}, 200, 'one who never asked');

is(ask('small', max_tokens => 90)->{status}, 200, 'a budget');
is(ask('small', max_tokens => 50)->{status}, 429, 'is used up');
is(admin('POST', 'tenants/small/grant?tokens=100&per=day')->{status}, 200, 'more for the day');
is(ask('small', max_tokens => 50)->{status}, 429, 'the month is the tighter one');
is(admin('POST', 'tenants/small/grant?tokens=1000&per=month')->{status}, 200, 'for the month');
is(ask('small', max_tokens => 50)->{status}, 200, 'now there is some');
is(ask('small', max_tokens => 90)->{status}, 429, 'but no more than that');
like($t->get('/metrics')->{body}, qr/llm_tenant_budget_tokens\{tenant="small",per="day"\} 200\n/,
    'in the metrics');
is(tenant('small')->{day_granted}, 100, 'and listed');

$t->stop('nginx', 'QUIT');
ok($t->start_nginx, 'restart');
$t->wait_ready;
is(ask('acme')->{status}, 403, 'still blocked');
is(tenant('small')->{month_granted}, 1000, 'still granted');
is(admin('DELETE', 'tenants/acme/block')->{status}, 200, 'unblock');
is(ask('acme')->{status}, 200, 'as before');

# --- what is none ----------------------------------------------------------------

is(admin(@$_)->{status}, 404, "@$_") for ['GET', ''], ['GET', 'nothing'], ['PUT', 'tenants/x'],
    ['PUT', 'tenants/a%20b/block'], ['PUT', 'tenants/x/bloc'], ['PUT', 'tenants//block'],
    ['PUT', 'tenants/' . 'x' x 65 . '/block'];
is(admin(@$_)->{status}, 405, "@$_") for ['POST', 'requests'], ['GET', 'requests/r1'],
    ['DELETE', 'tenants'], ['GET', 'tenants/x/block'], ['GET', 'tenants/x/grant'];
is(admin('POST', "tenants/small/grant$_")->{status}, 400, "grant$_") for '', '?tokens=5',
    '?per=day', '?tokens=0&per=day', '?tokens=-1&per=day', '?tokens=x&per=day',
    '?tokens=5&per=year', '?tokens=99999999999999999999&per=day';

# --- who may ---------------------------------------------------------------------

is(admin('GET', 'requests', Origin => 'http://localhost')->{status}, 403, 'no web page');
is(admin('PUT', 'tenants/other/block', Origin => 'null')->{status}, 403, 'whatever it calls itself');
is(admin('GET', 'requests', Host => $_)->{status}, 403, "no name that may lead here: $_")
    for 'evil.example', 'localhost.evil.example', 'localhos';
is(admin('GET', 'requests', Host => $_)->{status}, 200, "Host: $_")
    for 'localhost', "localhost:$t->{port}", '127.0.0.1', '[::1]:8080';
is(admin('GET', 'requests', 'Sec-Fetch-Site' => $_)->{status}, $_ eq 'none' ? 200 : 403,
    "Sec-Fetch-Site: $_") for qw(none same-origin cross-site same-site);
for my $ip ('10.0.0.1', '127.0.0.1', '2001:db8::1', '::1', '::ffff:10.0.0.1', '::ffff:127.0.0.1') {
    is($t->get('/far/requests', 'X-Real-IP' => $ip)->{status},
        $ip =~ /127|^::1/ ? 200 : 403, "from $ip");
}
is(ask('other')->{status}, 200, 'nothing of that was done');

$t->done;
