# Catches: an overload that hits whoever comes next instead of the lowest class
# first; a refusal without a word when to come back; anything that stays refused
# when the load is gone.

use strict;
use warnings;
use lib 't/lib';
use LLM;
use Test::More;

my $t = LLM->new(engine => [qw(--device null --model_name m --step_min 10ms --requests 64)], workers => 1, location => 'llm_tenant_key $http_x_tenant;',
    conf => join '', '    llm_tenant waits { concurrent 1; queue 2 timeout=400ms; }', "\n",
        map { "    llm_tenant c$_ { priority $_; }\n" } 0 .. 7);

sub begin {
    my ($class) = @_;
    my $c = $t->connect;
    print $c $t->request_text('POST', '/v1/completions', { model => 'm', prompt => 'x',
        max_tokens => 1500, stream => JSON::PP::true() }, 'X-Tenant' => "c$class");
    my $s = LLM::Stream->new($c);
    return $s->status(10) == 200 && defined $s->next_event(10) ? $s : ($s, $s->status);
}

# fills up with the lowest class until that is refused, then the next one ...
my (@s, %at, $r);
for my $class (7, 6, 3, 1, 0) {
    my $n = 0;
    while ($n++ < 80) {
        my ($s, $refused) = begin($class);
        if (defined $refused) {
            is($refused, 429, "class $class is refused at last");
            $r = $s;
            last;
        }
        push @s, $s;
    }
    $at{$class} = @s;
    ok($r->{headers}{'retry-after'}, 'with a time to come back');
}
is(join(' ', map { "$_:$at{$_}" } sort { $b <=> $a } keys %at), '7:36 6:40 3:52 1:60 0:64',
    'each class leaves a sixteenth to the one above it');

# and all of it is a matter of the moment
$_->close for @s;
ok($t->pool_is_full(5), 'at rest');
my ($again, $refused) = begin(7);
ok(!defined $refused, 'the lowest class is served again');
$again->close;

# --- a tenant's own queue: so many wait, and so long -----------------------------

sub ask {
    my ($tokens) = @_;
    my $c = $t->connect;
    print $c $t->request_text('POST', '/v1/completions', { model => 'm', prompt => 'x',
        max_tokens => $tokens }, 'X-Tenant' => 'waits');
    return LLM::Stream->new($c);
}
my $long = ask(100); # a second
ok($t->wait_for(sub { $t->metric('requests_running') == 1 }, 5), 'one runs');
my @wait = map { ask(2) } 1 .. 2;
ok($t->wait_for(sub { $t->metric('requests_waiting') == 2 }, 5), 'two wait');
is(ask(2)->status(2), 429, 'one more may not');
is(join(' ', map { LLM->decode($_->whole(5)->{body})->{error}{code} } @wait),
    'queue_timeout queue_timeout', 'nor for ever');
is($long->status(5), 200, 'the one ends');
is(ask(2)->status(5), 200, 'and there is room');

$t->done;
