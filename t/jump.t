#!/usr/bin/env perl
# Catches: a text that is another where tokens are not sampled that a grammar
# forces; tokens that are lost, or counted twice, at a jump; a jump beyond
# max_tokens, past a stop string, beside logprobs or where it is turned off.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use LLM;
use Test::More;

my $name = LLM->demo_name;
my $true = JSON::PP::true;

sub object { # schema of an object with these, in this order
    my (@props) = @_;
    my ($text, @names) = '';
    while (my ($n, $s) = splice @props, 0, 2) {
        $text .= ',' if @names;
        $text .= "\"$n\":$s";
        push @names, "\"$n\"";
    }
    return "{\"type\":\"object\",\"additionalProperties\":false,\"required\":["
        . join(',', @names) . "],\"properties\":{$text}}";
}

my $word = '{"type":"string","pattern":"^[a-z]{1,8}$"}';
my $digit = '{"type":"integer","minimum":0,"maximum":9}';
my $bool = '{"type":"boolean"}';
my @asks;
for my $prompt ('A pet: ', 'Once upon a time', 'ngx_llm is', 'The answer is', "1 + 1 =\n") {
    push @asks, map { { prompt => $prompt, guided_json => $_, json_options => { whitespace => JSON::PP::false } } }
        object(name => $word, age => $digit, 'favourite colour' => '{"enum":["red","green"]}'),
        object(first_name => $word, last_name => $word, registered => $bool, subscribed => $bool),
        object(position => object(latitude => $digit, longitude => $digit), description => $word);
    push @asks, map { { prompt => $prompt, guided_regex => $_ } }
        'Dear (Sir|Madam), thank you for your letter of (Monday|Friday)\. Yours, [A-Z][a-z]{1,6}',
        'https://example\.com/(users|items)/[0-9]{1,3}\?format=(json|xml)';
    push @asks, { prompt => $prompt, guided_choice => ['the first of them', 'the second of them', 'neither of these'] };
    push @asks, { prompt => $prompt,
        guided_grammar => "root ::= \"SELECT \" name \" FROM \" name \" WHERE id = \" [0-9] \";\"\nname ::= [a-z] [a-z]? [a-z]?" };
}

sub ask {
    my ($t, %body) = @_;
    my $r = $t->post('/v1/completions', { model => $name, temperature => 0, max_tokens => 100, %body });
    my $d = LLM->decode($r->{body});
    return $r->{status} == 200 ? ($d->{choices}[0], $d->{usage}) : ({ text => $r->{body} }, {});
}

# --- with and without ---------------------------------------------------------------

my %said;
my $t = LLM->new(engine => ['--model', LLM->demo, '--grammar_jump', 'off'], workers => 1);
$said{off} = [map { my ($c) = ask($t, %$_); "$c->{text} [$c->{finish_reason}]" } @asks];
is($t->metric('jump_tokens'), 0, 'off: each token is sampled');
$t->signal(engine => 'TERM');
$t->reap('engine');
$t->start_engine('--grammar_jump', 'on');
$t->wait_ready;
$said{on} = [map { my ($c) = ask($t, %$_); "$c->{text} [$c->{finish_reason}]" } @asks];
my ($jumped, $all) = map { $t->metric($_) } qw(jump_tokens completion_tokens);
note("$jumped of $all tokens were not sampled");
cmp_ok($jumped, '>', $all / 5, 'on: what is forced is not sampled');
is(scalar(grep { !/\[stop\]$/ } @{ $said{on} }), 0, 'all come to their end');

# --- the same while the next step is planned
$t->signal(engine => 'TERM');
$t->reap('engine');
$t->start_engine('--grammar_jump', 'on', '--planning_depth', 1);
$t->wait_ready;
$said{ahead} = [map { my ($c) = ask($t, %$_); "$c->{text} [$c->{finish_reason}]" } @asks];
is($t->metric('jump_tokens'), $jumped, 'planned ahead: as many are not sampled');
is_deeply($said{ahead}, $said{on}, 'and all texts are the same');
my $kinds = @asks / 5; # of each prompt
for my $kind (0 .. $kinds - 1) {
    my @at = map { $kind + $_ * $kinds } 0 .. 4;
    my $r = $t->post('/v1/completions', { model => $name, temperature => 0, max_tokens => 100, %{ $asks[$kind] },
        prompt => [map { $asks[$_]{prompt} } @at] });
    my $d = LLM->decode($r->{body});
    is_deeply([map { "$_->{text} [$_->{finish_reason}]" } @{ $d->{choices} }], [@{ $said{on} }[@at]],
        "five prompts in the same steps, $kind");
}

# --- where it must not go
my %long = (guided_regex => 'x the quick brown fox jumps over the lazy dog, and once more [ab]', prompt => 'A');
my ($whole, $usage) = ask($t, %long);
is($whole->{finish_reason}, 'stop', 'a text that is nearly all forced');
my $n = $usage->{completion_tokens};
for my $max (2, 3, $n - 1, $n) {
    my ($c, $u) = ask($t, %long, max_tokens => $max);
    is($u->{completion_tokens}, $max, "max_tokens $max cuts a jump");
    is($c->{finish_reason}, $max < $n ? 'length' : 'stop', 'and says so');
    is($c->{text}, substr($whole->{text}, 0, length $c->{text}), 'the same text as far as it goes');
}
my ($c, $u) = ask($t, %long, stop => 'fox j');
is($c->{text}, 'x the quick brown ', 'a stop string within a jump');
cmp_ok($u->{completion_tokens}, '<', $n, 'and what is behind it is not counted');
my $before = $t->metric('jump_tokens');
($c) = ask($t, %long, logprobs => 1);
is($c->{text}, $whole->{text}, 'with logprobs: the same text');
is(scalar @{ $c->{logprobs}{tokens} }, $n, 'with all of its tokens');
is($t->metric('jump_tokens'), $before, 'each of them sampled');
my $s = $t->stream('/v1/completions', { model => $name, temperature => 0, max_tokens => 100, %long });
is($s->text, $whole->{text}, 'streamed as the whole');
ok($t->pool_is_full(3), 'all blocks are back');

my @other = grep { $said{on}[$_] ne $said{off}[$_] } 0 .. $#asks;
diag("request $_: $said{on}[$_]\n      not $said{off}[$_]") for @other;
cmp_ok(scalar @other, '<=', @asks / 100, scalar(@asks) . ' texts are the same');

$t->done;
