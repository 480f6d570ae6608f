# Catches: several engines behind one name of which one does the work, or of
# which none knows a conversation again; one that is down, drains or is full
# and takes the others' requests with it; a tenant that gets its share of each.

use strict;
use warnings;
use lib 't/lib';
use LLM;
use Test::More;

my @names = qw(one two three);
my $t = LLM->new(no_nginx => 1, workers => 2,
    engine => [qw(--device null --model_name other)], server => <<'CONF');
        add_header X-Engine $llm_engine always;
        location /all/ { llm_pass one two three; }
        location /two/ { llm_pass one two; }
        location /tenant/ { llm_pass one two; llm_tenant_key $http_x_tenant; }
CONF
$t->{conf} .= "llm_engine $_ { server unix:$t->{dir}/$_.sock; reconnect 20ms 50ms; }\n"
    . "llm_model m engine=$_ as=$_-model;\n" for @names;
$t->{conf} .= "llm_tenant some { concurrent 3; queue 3 timeout=60s; }\n";

sub start {
    my ($name) = @_;
    my $path = "$t->{dir}/$name.sock";
    $t->_spawn($name => "$t->{dir}/engine.log", LLM->build . '/llm-engine', '--listen', $path,
        qw(--device null --kv_memory 4m --step_min 5ms --slots 60 --requests 60
            --drain_timeout 20s),
        '--model_name', "$name-model",
        '--context', $name eq 'three' ? 2048 : 4096, $> ? () : qw(--socket_group www-data));
    $t->wait_for(sub { -S $path }, 10) or diag("no $name");
}
sub engine { my ($n) = @_; (grep { $_->{name} eq $n } @{ $t->status->{engines} })[0] }
# both workers must know, whichever of them answers
sub up {
    my ($want, @who) = @_;
    my $ok = 0;
    $t->wait_for(sub {
        my @e = map { engine($_) } @who;
        my @so = grep { !!$_->{worker_up} == !!$want && ($_->{attachments} // 2) == 2 } @e;
        $ok = @so == @e ? $ok + 1 : 0;
        $ok >= 8;
    }, 20) or diag("not " . ($want ? 'up' : 'down') . ": @who");
}
start($_) for @names;
$t->start_nginx;
up(1, @names);

sub ask {
    my ($path, $turns, $who, %more) = @_;
    my @m = ({ role => 'system', content => 'You are brief.' });
    push @m, { role => 'user', content => "$who asks $_" },
        { role => 'assistant', content => "answer $_ to $who" } for 1 .. $turns;
    pop @m;
    my $r = $t->post("$path/chat/completions",
        { model => 'm', messages => \@m, max_tokens => 2 }, %more);
    return $r->{status} == 200 ? $r->{headers}{'x-engine'} : $r->{status};
}

# --- a conversation stays where it began -------------------------------------

my (%home, %used);
for my $who (map { "user $_" } 1 .. 24) {
    my %seen = map { ask('/all', $_, $who) => 1 } 1 .. 4;
    is(keys %seen, 1, "$who: all turns to one engine") or diag(join ' ', keys %seen);
    ($home{$who}) = keys %seen;
    $used{ $home{$who} }++;
}
is(join(' ', sort keys %used), 'one three two', 'and all engines have some: '
    . join(' ', map { "$_ $used{$_}" } sort keys %used));

my %text = map { $t->post('/all/completions', { model => 'm', max_tokens => 1,
    prompt => 'a long beginning, ' x 20 . $_ })->{headers}{'x-engine'} => 1 } 1 .. 6;
is(keys %text, 1, 'prompts that begin alike, too');

my $models = LLM->decode($t->get('/all/models')->{body})->{data};
is_deeply([ map { $_->{id} } @$models ], ['m'], 'three of one model are one');
is($models->[0]{max_model_len}, 2048, 'with the shortest context');

# --- but not at any price ------------------------------------------------------

# one after the other: what a worker knows of an engine is a moment old
my @busy;
for (1 .. 45) {
    push @busy, $t->stream('/all/completions', { model => 'm', max_tokens => 4000,
        prompt => 'all alike' });
    $busy[-1]->next_event(10);
}
my @held = map { engine($_)->{requests_held} } @names;
is($held[0] + $held[1] + $held[2], 45, "45 alike: @held");
is(scalar(grep { $_ > 22 } @held), 0, 'no engine has half of them');
$_->close for @busy;
ok($t->wait_for(sub { !grep { engine($_)->{requests_held} } @names }, 10), 'at rest');

# --- one goes ------------------------------------------------------------------

$t->signal(one => 'KILL');
$t->reap('one');
up(0, 'one');
my ($moved, $stayed, $bad) = (0, 0, 0);
for my $who (sort keys %home) {
    my $now = ask('/all', 5, $who);
    $now !~ /^(two|three)$/ ? $bad++ : $home{$who} eq 'one' ? $moved++
        : $now eq $home{$who} ? $stayed++ : $bad++;
}
is("$moved $stayed $bad", "$used{one} " . (24 - $used{one}) . ' 0',
    'others take over what it had, and keep what they had');
start('one');
up(1, 'one');
is(scalar(grep { ask('/all', 6, $_) ne $home{$_} } sort keys %home), 0, 'back, and all is as before');

# drained in the middle of work: nothing fails, its stream is whole
my $s = $t->stream('/all/completions', { model => 'm', max_tokens => 200, prompt => 'all alike' });
$s->next_event(10);
my $on = $s->{headers}{'x-engine'};
$t->signal($on => 'TERM');
my %got;
$got{ ask('/all', 1, "user $_") }++ for 1 .. 24;
is(join(' ', grep { /\d/ } keys %got), '', "$on drains: none fails");
$s->events(20);
ok($s->{done_seen}, 'and what it had is finished');
is($t->reap($on, 20), 0, 'then it ends');
start($on);
up(1, $on);

# --- full ones -----------------------------------------------------------------

@busy = map { $t->stream('/all/completions', { model => 'm', max_tokens => 4000,
    prompt => "full $_" }) } 1 .. 90;
my $served = grep { $_->status(20) == 200 } @busy;
is($served, 90, 'three engines of 60 places take 90');
my %status;
my @more;
for (1 .. 100) { # one after the other: what an engine says of itself is a moment old
    push @more, $t->stream('/all/completions', { model => 'm', max_tokens => 4000,
        prompt => "more $_" });
    $status{ $more[-1]->status(20) }++;
}
cmp_ok($status{200}, '>=', 12, 'and more, up to what each keeps for the other worker: ' . $status{200});
is(join(' ', sort keys %status), '200 429', 'the others are told so');
$_->close for @busy, @more;
ok($t->wait_for(sub { !grep { engine($_)->{requests_held} } @names }, 20), 'at rest');

# --- a tenant's share is of all of them ------------------------------------------

@busy = map {
    my $c = $t->connect;
    print $c $t->request_text('POST', '/tenant/completions', { model => 'm', max_tokens => 4000,
        prompt => "tenant $_", stream => JSON::PP::true() }, 'X-Tenant' => 'some');
    LLM::Stream->new($c);
} 1 .. 8;
my ($running, $most) = (0, 0);
$t->wait_for(sub {
    $running = engine('one')->{requests_running} + engine('two')->{requests_running};
    $most = $running if $running > $most;
    0;
}, 2);
is($most, 3, 'three at a time over both');
$_->close for @busy;

$t->signal($_ => 'KILL'), $t->reap($_) for @names;
up(0, @names);
is(ask('/all', 1, 'nobody'), 503, 'none is left');

$t->done;
