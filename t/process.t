#!/usr/bin/env perl
# Processes that come and go around requests: configuration tests, reloads with
# other engines, a binary upgrade, graceful ends with and without a limit, a
# single process, and a log at debug level that still says no prompt.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use LLM;
use Test::More;
use Time::HiRes qw(sleep time);

my $nginx = $ENV{LLM_NGINX} // '/usr/sbin/nginx';
my $t = LLM->new(workers => 2,
    engine => [qw(--device null --model_name m --context 4096 --step_min 10ms)]);
my %ok = (model => 'm', prompt => 'x', max_tokens => 3);
my @orphans;

# masters that are not our children would outlive a failing test
END { kill TERM => @orphans if @orphans }

sub attached { scalar(() = $t->engine_log =~ /^.* attached, epoch/mg) }

sub begin {
    my ($tokens, $path) = @_;
    my $s = $t->stream(($path // '/v1') . '/completions',
        { model => 'm', prompt => 'x', max_tokens => $tokens });
    my $e = $s->next_event(10) // '{}';
    $s->{first} = $t->decode($e)->{choices}[0]{text} // '';
    return $s;
}

# A word or full stop is a token; an event may have several.
sub whole {
    my ($what, $s, $tokens) = @_;
    my $text = $s->{first} . $s->text(0, 20);
    ok($s->{done_seen} && $s->{whole}, "$what: a proper end");
    is(scalar(() = $text =~ /[ .]/g), $tokens, "$what: whole");
    $s->close;
}

sub alive { my ($pid) = @_; -e "/proc/$pid" && LLM::_slurp("/proc/$pid/stat") !~ /\) Z/ }

# --- nginx -t connects to nothing
my $n = attached();
cmp_ok($n, '==', 2, 'one attachment per worker');
my $out = `ASAN_OPTIONS=detect_leaks=0 $nginx -t -p $t->{dir} -e $t->{dir}/test.log -c $t->{dir}/nginx.conf 2>&1`;
is($?, 0, 'nginx -t is content') or diag($out);
is(attached(), $n, 'and did not attach');
$t->signal(engine => 'STOP');
my $start = time;
$out = `ASAN_OPTIONS=detect_leaks=0 $nginx -t -p $t->{dir} -e $t->{dir}/test.log -c $t->{dir}/nginx.conf 2>&1`;
cmp_ok(time - $start, '<', 2, 'nor would it wait for a hung engine');
$t->signal(engine => 'CONT');
unlike($t->engine_log, qr/said no hello|went away/, 'the engine saw nothing of it');

# --- reload: an engine more, one renamed, one gone
my $two = "$t->{dir}/two.sock";
$t->_spawn(two => "$t->{dir}/two.log", LLM->build . '/llm-engine', '--listen', $two,
    qw(--device null --model_name second), $> ? () : qw(--socket_group www-data));
$t->wait_for(sub { -S $two }, 10);
my $text = $t->conf_text;
my $more = $text =~ s{(    server \{\n)}{    llm_engine two { server unix:$two; reconnect 50ms 200ms; }\n$1}r
    =~ s{(        location = /health)}{        location /two/ { llm_pass two; }\n$1}r;
my $s = begin(150);
$t->write_conf($more);
ok($t->reload, 'reload with an engine more');
ok($t->wait_for(sub { $t->get('/two/models')->{status} == 200 }, 5), 'it is there');
is($t->post('/two/completions', { %ok, model => 'second' })->{status}, 200, 'and serves');
whole('a stream across it', $s, 150);

$s = begin(150);
my $s2 = $t->stream('/two/completions', { %ok, model => 'second', max_tokens => 2000 });
$s2->next_event;
(my $renamed = $text) =~ s/llm_engine main/llm_engine other/;
$renamed =~ s/llm_pass main/llm_pass other/;
$t->write_conf($renamed);
ok($t->reload, 'reload with one renamed, one gone');
$t->wait_ready;
is($t->post('/v1/completions', { %ok })->{status}, 200, 'served under the new name');
is(join(' ', map { $_->{name} } @{ $t->status->{engines} }), 'other', 'one engine is left');
is($t->get('/two/models')->{status}, 404, 'the location went with the other');
whole('a stream across it', $s, 150);
$s2->events(20);
ok($s2->{done_seen}, 'so is one from the engine that went');
$s2->close;
ok($t->wait_for(sub { LLM::_slurp("$t->{dir}/two.log") =~ /detached(?!.*attached, epoch)/s }, 10),
    'which has no worker any more');
$t->stop(two => 'TERM');

# a broken configuration changes nothing
$t->write_conf($text =~ s/llm_pass main/llm_pass nobody/r);
$t->allow(qr/unknown llm engine "nobody"/);
my @before;
$t->wait_for(sub { @before = $t->pids; @before == $t->{workers} }, 20);
$t->signal(nginx => 'HUP');
ok($t->wait_for(sub { $t->error_log =~ /unknown llm engine "nobody"/ }, 5), 'a broken one');
sleep 0.2;
is(join(' ', sort $t->pids), join(' ', sort @before), 'is not taken');
is($t->post('/v1/completions', { %ok })->{status}, 200, 'and hurts no one');

# --- worker_shutdown_timeout ends what does not end
$t->write_conf("worker_shutdown_timeout 700ms;\n$text");
ok($t->reload, 'reload with a limit');
ok($t->wait_for(sub { $t->pids == 2 }, 10), 'the old ones are gone');
$t->wait_ready;
unlink "$t->{dir}/access.log";
$t->signal(nginx => 'USR1');
$t->wait_for(sub { -e "$t->{dir}/access.log" }, 5);
$s = begin(3000);
$s2 = begin(3000, '/v1');
my $unstreamed = $t->connect;
print $unstreamed $t->request_text('POST', '/v1/completions', { %ok, max_tokens => 3000 });
ok($t->wait_for(sub { $t->metric('requests_running') == 3 }, 5), 'three run');
$start = time;
ok($t->reload, 'reload');
$_->events(10) for $s, $s2;
cmp_ok(time - $start, '<', 6, 'cut when the time is over');
ok(!$s->{done_seen} && !$s2->{done_seen}, 'which shows');
ok($t->pool_is_full(5), 'their blocks are free');
is(() = $t->access_log =~ m{POST /v1/completions}g, 3, 'each has its line in the log');
$_->close for $s, $s2;
close $unstreamed;

# --- QUIT waits for streams
ok($t->wait_for(sub { $t->pids == 2 }, 10), 'the old ones are gone');
$t->write_conf($text);
$t->reload;
$t->wait_for(sub { $t->pids == 2 }, 10);
$t->wait_ready;
$s = begin(200);
$t->signal(nginx => 'QUIT');
whole('a stream across QUIT', $s, 200);
ok(defined $t->reap('nginx', 5), 'then nginx ends');
ok($t->wait_for(sub { $t->engine_log =~ /detached(?!.*attached, epoch)/s }, 5),
    'and is detached');

# --- USR2: another master beside this one, which only a daemon does
sub master { (LLM::_slurp("$t->{dir}/nginx.pid") =~ /(\d+)/)[0] }

$t->write_conf($text =~ s/daemon off/daemon on/r);
is(system("ASAN_OPTIONS=detect_leaks=0 $nginx -p $t->{dir} -e $t->{dir}/error.log -c $t->{dir}/nginx.conf"),
    0, 'started again, as a daemon');
ok($t->wait_for(sub { master() }, 5), 'with a pid file');
push @orphans, my $old = master();
$t->wait_ready;
$s = begin(300);
$n = attached();
kill USR2 => $old;
ok($t->wait_for(sub { -e "$t->{dir}/nginx.pid.oldbin" && master() }, 5), 'USR2: a new master');
push @orphans, my $new = master();
isnt($new, $old, 'of another pid');
ok($t->wait_for(sub { attached() == $n + 2 }, 5), 'its workers attach, too');
is($t->metric('attachments'), 4, 'four are attached');
is($t->post('/v1/completions', { %ok })->{status}, 200, 'served by any') for 1 .. 8;
kill QUIT => $old;
whole('a stream on the old master', $s, 300);
ok($t->wait_for(sub { !alive($old) }, 5), 'the old master ends');
ok($t->wait_for(sub { $t->metric('attachments') == 2 }, 5), 'two are left');
is($t->post('/v1/completions', { %ok })->{status}, 200, 'served by the new') for 1 .. 4;
kill TERM => $new;
ok($t->wait_for(sub { !alive($new) }, 5), 'the new one ends') and @orphans = ();

# --- one process for all
$t->{workers} = 1;
ok($t->start_nginx("master_process off;\n" . $t->conf_text), 'master_process off');
$t->wait_ready;
is($t->post('/v1/completions', { %ok })->{status}, 200, 'is served');
is($t->stream('/v1/completions', { %ok, max_tokens => 9 })->text,
    $t->decode($t->post('/v1/completions', { %ok, max_tokens => 9 })->{body})
        ->{choices}[0]{text}, 'streamed, too');
$t->stop(nginx => 'TERM');

# --- the debug log says everything, but no prompt and no answer
my $debug = $t->conf_text;
$debug =~ s/error\.log info/error.log debug/;
ok($t->start_nginx($debug), 'error_log debug');
$t->wait_ready;
for my $stream (JSON::PP::true, JSON::PP::false) {
    $t->post('/v1/completions', { %ok, prompt => 's3cretPrompt', stop => 's3cretStop',
        stream => $stream });
    $t->post('/v1/chat/completions', { model => 'm', max_tokens => 3, stream => $stream,
        messages => [{ role => 'user', content => 's3cretMessage' }] });
    $t->post('/v1/completions', { %ok, model => 's3cretModel', prompt => 's3cretPrompt' });
    $t->post('/v1/completions', '{"prompt": "s3cretPrompt"');
    $t->curl('--http2', '-d', $t->encode({ %ok, prompt => 's3cretPrompt', stream => $stream }),
        $t->https('/v1/completions'));
}
my $log = $t->error_log;
like($log, qr/\[debug\]/, 'it is at debug level');
unlike($log, qr/s3cret(?!Model)/, 'no prompt in it');
unlike($log, qr/lorem|ipsum|dolor/, 'no answer in it');
unlike($log, qr/s3cretModel/, 'no name that is not ours');

# --- no socket was left open by any of these ends
unlike($log, qr/open socket/, 'no open sockets left');

$t->done;
