# Catches: a request of a tenant that is not in the usage log, or twice; counts
# other than the client's; a line that is no JSON; a log that is not opened
# anew; a full disk that costs more than lines.

use strict;
use warnings;
use lib 't/lib';
use Digest::SHA 'sha256_hex';
use LLM;
use Test::More;
use Time::HiRes 'sleep';

my $dir = File::Temp::tempdir('/tmp/ngx_llm_t.XXXXXX', CLEANUP => 1);
chmod 0777, $dir;
my $log = "$dir/usage.log";
open my $f, '>', "$dir/keys" or die $!;
print $f sha256_hex("key $_"), " id$_ t$_\n" for 1 .. 3;
print $f sha256_hex('key m'), " m tm models=none\n";
close $f;

my $t = LLM->new(engine => [qw(--device null --model_name m)], workers => 2,
    listen => 'sndbuf=8k', location => 'llm_output_buffer 2k; send_timeout 30s;', conf => <<"CONF");
    llm_key_file $dir/keys;
    llm_zone llm:1m state=$dir/state;
    llm_usage_log $log;
    llm_request_id \$http_x_id;
CONF

sub bearer { (Authorization => "Bearer key $_[0]", 'X-Id' => $_[1]) }

# The lines of an id, once there are n of them (1).
sub lines {
    my ($id, $n) = @_;
    my @got;
    $t->wait_for(sub {
        @got = grep { $_->{id} eq $id } map { LLM->decode($_) } split /\n/, LLM::_slurp($log);
        @got >= ($n // 1);
    }, 10);
    return @got;
}

sub one {
    my ($id, $want, $name) = @_;
    my @got = lines($id);
    is(scalar @got, 1, "$name: one line");
    my %of = %{ $got[0] // {} };
    is_deeply({ map { $_ => $of{$_} } keys %$want }, $want, "$name: what it says")
        or diag(LLM->encode(\%of));
    return \%of;
}

my $line;
my %body = (model => 'm', prompt => 'some words', max_tokens => 7);

my $r = $t->post('/v1/completions', { %body }, bearer(1, 'whole'));
my $usage = LLM->decode($r->{body})->{usage};
$line = one('whole', { tenant => 't1', key => 'id1', model => 'm', status => 200,
    finish => 'length', error => '', prompt_tokens => $usage->{prompt_tokens},
    completion_tokens => 7, cached_tokens => 0, recovered => JSON::PP::false }, 'an answer');
is($line->{traceparent}, '', 'no traceparent');
my $trace = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';
$t->post('/v1/completions', { %body }, bearer(1, 'traced'), traceparent => $trace);
one('traced', { traceparent => $trace }, 'a traceparent');
$t->post('/v1/completions', { %body }, bearer(1, "bad$_->[0]"), traceparent => $_->[1])
    for [ 1, $trace . '0' ], [ 2, substr($trace, 1) . '"' ], [ 3, '00"' . substr $trace, 3 ];
one("bad$_", { traceparent => '' }, 'what is none') for 1 .. 3;
like($line->{time}, qr/^20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/, 'when');
cmp_ok($line->{ms}, '<', 10000, 'how long');
cmp_ok($usage->{prompt_tokens}, '>', 0, 'there was a prompt');

$t->post('/v1/completions', { %body, stream => JSON::PP::true }, bearer(2, 'stream'));
one('stream', { tenant => 't2', status => 200, completion_tokens => 7, finish => 'length' },
    'a stream');
$t->post('/v1/completions', '{"model":', bearer(1, 'bad'));
one('bad', { tenant => 't1', status => 400, error => 'invalid_json', completion_tokens => 0 },
    'bad JSON');
$t->post('/v1/completions', { %body, model => "x\"\n" }, bearer(1, 'nomodel'));
one('nomodel', { status => 404, error => 'model_not_found' }, 'no such model');
$t->post('/v1/completions', { %body }, bearer('m', 'denied'));
one('denied', { tenant => 'tm', status => 403, error => 'model_not_allowed' }, 'not allowed');
$t->get('/v1/models', bearer(3, 'list'));
one('list', { tenant => 't3', status => 200 }, 'the list');
$t->get('/v1/nothing', bearer(3, 'nothing'));
one('nothing', { status => 404, error => 'unknown_url' }, 'a wrong path');
$t->post('/v1/completions', { %body }, bearer('wrong', 'nobody'));
sleep 0.1;
is(scalar(grep { /"nobody"/ } split /\n/, LLM::_slurp($log)), 0, 'nobody has no line');

# One that is on its way until its client reads on: by then it holds credit up.
sub running {
    my ($id) = @_;
    my $c = $t->connect(rcvbuf => 2048);
    print $c $t->request_text('POST', '/v1/completions', { %body, max_tokens => 4000,
        ignore_eos => JSON::PP::true, stream => JSON::PP::true }, bearer(2, $id));
    my $stream = LLM::Stream->new($c);
    my $seen = 0;
    $seen += () = $stream->next_event for 1 .. 3;
    return ($stream, $seen);
}

my ($stream, $seen) = running('leaves');
$stream->close;
$line = one('leaves', { tenant => 't2', finish => 'abort', status => 200 }, 'a client that left');
cmp_ok($line->{completion_tokens}, '>=', $seen, 'at least what it saw');
cmp_ok($line->{completion_tokens}, '<', 4000, 'and not all');
cmp_ok($line->{prompt_tokens}, '>', 0, 'the prompt is counted');

# the log is opened anew
rename $log, "$log.1" or die $!;
$t->signal(nginx => 'USR1');
ok($t->wait_for(sub { -e $log }, 10), 'USR1 opens the log anew');
sleep 0.5;
$t->post('/v1/completions', { %body }, bearer(1, 'anew'));
one('anew', { status => 200 }, 'in the new file');

# --- killed ----------------------------------------------------------------

($stream) = running('engine');
$t->signal(engine => 'KILL');
$t->reap('engine');
$stream->events(20); # it may have stalled: what is held goes first
one('engine', { tenant => 't2', finish => 'error', error => 'engine_lost' }, 'engine killed');
$t->start_engine;
$t->wait_ready;

for my $signal (qw(KILL TERM)) {
    my @streams = map { [running("$signal-$_")] } 1 .. 6;
    my @pids = $t->pids;
    kill $signal, @pids;
    $t->wait_for(sub { my %now = map { $_ => 1 } $t->pids; !grep { $now{$_} } @pids }, 10);
    for my $i (1 .. 6) {
        my ($stream, $seen) = @{ $streams[$i - 1] };
        $line = one("$signal-$i", { tenant => 't2', finish => 'abort',
            recovered => $signal eq 'KILL' ? JSON::PP::true : JSON::PP::false },
            "worker got $signal, $i");
        cmp_ok($line->{completion_tokens}, '>=', $seen, "$signal, $i: at least what it saw");
        $stream->close;
    }
    $t->wait_ready;
}
$t->allow(qr/exited on signal 9/);

# a reload, and a stream that outlives it
($stream, $seen) = running('reload');
ok($t->reload, 'reload');
$seen += () = $stream->events;
$line = one('reload', { finish => 'length', completion_tokens => 4000, status => 200 },
    'a stream over a reload');

# all of nginx at once: who comes next writes it down
my ($all) = running('all');
my @workers = $t->pids;
$t->signal(nginx => 'KILL');
kill 'KILL', @workers;
$t->reap('nginx');
is(scalar(grep { /"all"/ } split /\n/, LLM::_slurp($log)), 0, 'everything was killed');
ok($t->start_nginx, 'and comes again');
$t->wait_ready;
one('all', { tenant => 't2', recovered => JSON::PP::true }, 'all of nginx killed');

$t->done;
