# Catches: an engine that goes, is full or about to end, and takes requests with
# it that another one could answer; a request that is answered twice, counted
# twice or paid for twice; one that kills every engine it is given to.

use strict;
use warnings;
use lib 't/lib';
use Digest::SHA 'sha256_hex';
use LLM;
use Test::More;
use Time::HiRes qw(sleep time);

my $t = LLM->new(no_nginx => 1, engine => [qw(--device null --model_name none)],
    server => <<'CONF');
        location /two/ { llm_pass one two; llm_tenant_key $http_x_tenant; llm_request_id $http_x_id; }
        location /three/ { llm_pass one two three; }
        location /admin/ { llm_admin; }
CONF
my @names = qw(one two three);
$t->{conf} .= "llm_engine $_ { server unix:$t->{dir}/$_.sock; reconnect 10ms 20ms; }\n"
    . "llm_model m engine=$_;\n" for @names;
$t->{conf} .= "llm_usage_log $t->{dir}/usage.log;\n"
    . "llm_tenant some { budget 100000 per=day; max_input_tokens 100; }\n"
    . "llm_tenant alone { concurrent 1; queue 50; }\n";

sub engine { my ($n) = @_; (grep { $_->{name} eq $n } @{ $t->status->{engines} })[0] }
sub up {
    my ($want, @who) = @_;
    ok($t->wait_for(sub {
        @who == grep { !!engine($_)->{worker_up} == !!$want } @who
    }, 10), ($want ? 'up: ' : 'down: ') . "@who");
}
sub fake {
    my ($name, @more) = @_;
    my $path = "$t->{dir}/$name.sock";
    $t->_spawn($name => "$t->{dir}/$name.log", LLM->build . '/fake_engine', $path,
        qw(--model m --slots 32 --tokens 3), @more);
    $t->wait_for(sub { -S $path }, 10) or diag("no $name");
    chmod 0777, $path;
}
sub end { $t->signal($_ => 'KILL'), $t->reap($_), unlink "$t->{dir}/$_.sock" for @_; up(0, @_) }

my $asked = 0;
sub begin {
    my ($where, $tenant, $prompt, %more) = @_;
    my $c = $t->connect;
    print $c $t->request_text('POST', "$where/completions", { model => 'm', prompt => $prompt,
        max_tokens => 3, %more }, 'X-Tenant' => $tenant, 'X-Id' => 'id' . ++$asked);
    return LLM::Stream->new($c);
}
sub submitted { my ($n) = @_; scalar(() = LLM::_slurp("$t->{dir}/$n.log") =~ /^submit/mg) }
my $true = JSON::PP::true();

fake(one => '--delay', 60000);
fake('two');
$t->start_nginx;
up(1, qw(one two));

# --- an engine goes before it has answered --------------------------------------

my @s = map { begin('/two', 'some', "some text $_", $_ % 2 ? (stream => $true) : ()) } 1 .. 24;
ok($t->wait_for(sub { submitted('one') + submitted('two') == 24 }, 10), 'all are submitted');
my $on = submitted('one');
cmp_ok($on, '>', 2, "$on to an engine that says nothing");
end('one');
my @r = map { $_->whole(10) } @s;
is(scalar(grep { $_->{status} == 200 && $_->{complete} } @r), 24, 'it goes: all are answered');
is(scalar(grep { $_->{body} =~ /\[DONE\]\n\n\z/ } @r), 12, 'streams to their end');
is(scalar(grep { (() = $_->{body} =~ /"finish_reason":"/g) == 1 } @r), 24, 'each once');
is(submitted('two'), 24, 'by the other one');
my @lines = map { LLM->decode($_) } split /\n/, LLM::_slurp("$t->{dir}/usage.log");
my %seen = map { ("$_->{id} $_->{status} $_->{completion_tokens} $_->{prompt_tokens}" => 1) } @lines;
is(join(' ', scalar(@lines), scalar(keys %seen), scalar(grep { / 200 3 7$/ } keys %seen)),
    '24 24 24', 'each is in the usage log, once');
my ($some) = grep { $_->{name} eq 'some' }
    @{ LLM->decode($t->get('/admin/tenants')->{body})->{tenants} };
is("$some->{requests} $some->{day_used}", '24 240', 'and paid once');

# --- one that is about to end, or is full, and says so ------------------------------

for ([11, 'about to end'], [12, 'full']) {
    my ($err, $what) = @$_;
    fake(one => '--error', $err);
    up(1, 'one');
    @s = map { begin('/two', 'x', "more text $_") } 1 .. 16;
    is(scalar(grep { $_->status(10) == 200 } @s), 16, "$what: all are answered");
    cmp_ok(submitted('one'), '>', $on, 'by the other one') and $on = submitted('one');
    end('one');
}
end('two');
fake($_ => '--error', 12) for qw(one two);
up(1, qw(one two));
is(begin('/two', 'x', 'y')->status(10), 429, 'both are full');
end(qw(one two));

# --- one that ends with requests that have not begun -----------------------------------

sub real {
    my ($name, @more) = @_;
    my $path = "$t->{dir}/$name.sock";
    $t->_spawn($name => "$t->{dir}/$name.log", LLM->build . '/llm-engine', '--listen', $path,
        qw(--device null --model_name m --drain_timeout 300ms), @more,
        $> ? () : qw(--socket_group www-data));
    $t->wait_for(sub { -S $path }, 10) or diag("no $name");
}
fake(two => '--delay', 60000);
$on = submitted('two');
real(one => qw(--step_min 50ms));
up(1, qw(one two));
@s = map { begin('/two', 'alone', "text $_", max_tokens => 400, $_ % 2 ? (stream => $true) : ()) }
    1 .. 8;
ok($t->wait_for(sub { engine('one')->{requests_held} + submitted('two') == $on + 8 }, 5),
    'one at a time');
# all of them, as the other one of two engines has none of one
is(engine('one')->{requests_held} % 8, 0, 'at one engine');
SKIP: {
    skip 'the tenant is at the other engine', 2 if !engine('one')->{requests_held};
    $t->signal(one => 'TERM');
    ok($t->wait_for(sub { submitted('two') - $on >= 7 }, 5), 'it ends: the other has them');
    is($t->reap('one'), 0, 'it ends');
}
$_->close for @s;
end('two');

# --- what a request asks of its output goes along -----------------------------------

fake(one => '--delay', 60000);
up(1, 'one');
$on = submitted('one');
@s = map { begin('/two', 'x', "obey $_", max_tokens => 20, guided_regex => "[a-z]{3}$_!") } 1 .. 16;
ok($t->wait_for(sub { submitted('one') - $on == 16 }, 5), 'all at an engine that says nothing');
real('two');
up(1, 'two');
end('one');
@r = map { $_->whole(10) } @s;
is(scalar(grep { my $n = $_ + 1; (LLM->decode($r[$_]{body})->{choices} // [{}])->[0]{text} =~ /^[a-z]{3}$n!$/ } 0 .. 15),
    16, 'it goes: the other one obeys') or diag($r[0]{body});
$t->signal(two => 'TERM');
$t->reap('two');
unlink "$t->{dir}/two.sock";
up(0, 'two');

# --- a request that no engine survives -----------------------------------------------

fake($_ => '--die-after', 0) for @names;
up(1, @names);
my $r = begin('/three', 'x', 'y')->whole(10);
is("$r->{status} " . LLM->decode($r->{body})->{error}{code}, '503 engine_lost', 'it ends');
is(scalar(grep { kill 0 => $t->{pids}{$_} and !$t->reap($_, 0.3) } @names), 1,
    'with the second engine, and the third one lives');

for my $name (@names) {
    $t->signal($name => 'KILL') if $t->{pids}{$name};
    $t->reap($name);
    unlink "$t->{dir}/$name.sock";
}
up(0, @names);

# --- one after the other is killed, and two are always there (t/long: often) -------

real($_, qw(--step_min 5ms)) for @names;
up(1, @names);
my ($sent, $killed, %status) = (0, 0);
my $next = time + 0.2;
while ($killed < ($ENV{LLM_ROUNDS} // 6)) {
    my @batch = map { begin('/three', 'x', 'text ' . $sent++, max_tokens => 1) } 1 .. 24;
    if (time > $next) {
        my $name = $names[$killed++ % 3];
        $t->signal($name => 'KILL');
        $t->reap($name);
        real($name, qw(--step_min 5ms));
        $next = time + 0.4; # until both workers have it again
    }
    $status{ $_->status(10) }++ for @batch;
}
is(join(' ', map { "$_: $status{$_}" } sort keys %status), "200: $sent",
    "$killed engines killed, $sent requests answered");

$t->done;
